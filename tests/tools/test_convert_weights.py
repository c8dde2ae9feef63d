# SPDX-License-Identifier: Apache-2.0
"""Rewriting weights from elsewhere, as a person calls it."""

import runpy
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file, save_file

from ppcls.arch.convert import state_arrays
from ppcls.arch.pretrained import load_weights, read_weights
from ppcls.config.registry import ARCHS

TOOL = Path(__file__).resolve().parents[2] / "tools" / "convert_weights.py"


@pytest.fixture
def convert(monkeypatch, capsys, tmp_path):
    """Run the tool in a folder of its own: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["convert_weights.py", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(TOOL), run_name="__main__")
        return end.value.code, *capsys.readouterr()

    return call


@pytest.fixture
def source(tmp_path):
    """A `TinyDarkNet` of 3 classes as PyTorch would store it; its names are those of the layers here."""
    paddle.seed(0)
    model = ARCHS["TinyDarkNet"](class_num=3)
    stored = {
        name.replace("._mean", ".running_mean").replace("._variance", ".running_var"): array
        for name, array in state_arrays(model).items()
    }
    stored["features.conv1_1.norm.num_batches_tracked"] = np.array(5, np.int64)
    save_file(stored, tmp_path / "source.safetensors")
    return model


def test_the_result_is_a_file_that_a_run_starts_from(convert, source, tmp_path):
    code, out, err = convert("--arch", "TinyDarkNet", "--class_num", 3, "source.safetensors", "target.safetensors")
    assert (code, err) == (0, "")
    assert out.startswith("target.safetensors: TinyDarkNet, ") and out.count("\n") == 1
    other = ARCHS["TinyDarkNet"](class_num=3)
    load_weights(other, read_weights(tmp_path / "target"), "target", allow="none")
    for name, array in state_arrays(source).items():
        np.testing.assert_array_equal(other.state_dict()[name].numpy(), array)


def test_weights_that_paddle_saved_become_safetensors(convert, source, tmp_path):
    paddle.save(source.state_dict(), str(tmp_path / "weights.pdparams"))
    code, _, _ = convert("--arch", "TinyDarkNet", "--class_num", 3, "weights.pdparams", "target.safetensors")
    assert code == 0
    found = load_file(tmp_path / "target.safetensors")
    assert found.keys() == state_arrays(source).keys()
    for name, array in state_arrays(source).items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["--arch", "TinyDarkNet", "source.safetensors", "t.safetensors"],
            5,
            "classifier.bias [3] in the file, [1000]",
        ),
        (["--arch", "DenseNet121", "source.safetensors", "t.safetensors"], 5, "0 matched"),
        (["--arch", "TinyDarknet2", "source.safetensors", "t.safetensors"], 2, "did you mean 'TinyDarkNet'?"),
        (["--arch", "TinyDarkNet", "nothing.safetensors", "t.safetensors"], 5, "no such weights"),
        (["--arch", "TinyDarkNet", "cut.safetensors", "t.safetensors"], 5, "cannot be read as safetensors"),
        (["--arch", "TinyDarkNet", "weights.pth", "t.safetensors"], 2, "can run code"),
        (["--arch", "TinyDarkNet", "source.safetensors", "t.pdparams"], 2, "give it that ending"),
        (["--arch", "TinyDarkNet", "source.safetensors", "source.safetensors"], 2, "is there already"),
        (["--arch", "TinyDarkNet", "--class_num", "0", "source.safetensors", "t.safetensors"], 2, "at least 1"),
        (
            ["--arch", "TinyDarkNet", "--class_num", "3", "source.safetensors", "no/t.safetensors"],
            5,
            "no/t.safetensors: cannot be written (No such file or directory)",
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line_and_nothing_is_written(
    convert, source, tmp_path, arguments, code, message
):
    whole = (tmp_path / "source.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "weights.pth").write_bytes(b"PK")
    before = {path.name for path in tmp_path.iterdir()}
    found, _, err = convert(*arguments)
    assert found == code
    assert message in err.splitlines()[-1]
    assert code == 2 or err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == before
    assert (tmp_path / "source.safetensors").read_bytes() == whole


def test_help_shows_how(convert):
    code, out, _ = convert("--help")
    assert code == 0 and "--arch EfficientNetLite0" in out
