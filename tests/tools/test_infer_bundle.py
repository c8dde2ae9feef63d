# SPDX-License-Identifier: Apache-2.0
"""tools/infer.py --bundle refuses what is not as it was exported in one line, with the exit code of its kind."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import toy_bundle

from ppcls.deploy.bundle import KIND
from ppcls.utils.cli import exit_code_of
from ppcls.utils.errors import PpclsError
from ppcls.utils.manifest import MANIFEST
from ppcls.utils.storage import published

TOOL = Path(__file__).resolve().parents[2] / "tools" / "infer.py"
DATA, STORAGE, CONFIG = 3, 5, 2


@pytest.fixture
def bundle(tmp_path):
    return toy_bundle.write_bundle(tmp_path / "bundle")


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "green.png"
    path.write_bytes(toy_bundle.picture(1))
    return path


@pytest.fixture
def infer(monkeypatch, capsys):
    """Run the tool; its exit code, lines of output, and what it says of its failure."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments)])
        monkeypatch.setattr(sys, "path", [*sys.path])
        failure = None
        try:
            runpy.run_path(str(TOOL), run_name="infer")["main"]()
        except PpclsError as error:
            failure = error
        said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return exit_code_of(failure), said, "" if failure is None else str(failure)

    return call


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--bundle", "B", "I", "--batch_size", "0"), "--batch_size: expected 1 or more; got 0"),
        (("--bundle", "B", "I", "--threads", "-1"), "--threads: expected 1 or more; got -1"),
        (("--bundle", "B", "I", "-o", "Global.nonsense=1"), "-o belongs to -c FILE"),
        (("-c", "F", "--device", "gpu"), "--device belongs to --bundle; write -o Global.device=..."),
        (("-c", "F", "--batch_size", "2"), "--batch_size belongs to --bundle; write -o Infer.batch_size=..."),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(infer, capsys, arguments, says):
    with pytest.raises(SystemExit) as ended:
        infer(*arguments)
    assert ended.value.code == 2 and says in capsys.readouterr().err


def test_a_whole_bundle_answers(infer, bundle, picture):
    code, (answer,), _ = infer("--bundle", bundle, picture)
    assert (code, answer["label_names"][0]) == (0, "green")


def flipped(directory):
    content = bytearray((directory / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (directory / "model.onnx").write_bytes(content)


def with_swapped_labels(directory):
    path = directory / "inference.yml"
    path.write_text(path.read_text().replace("red", "?").replace("green", "red").replace("?", "green"))


def linked(directory):
    shutil.move(directory / "model.onnx", directory.parent / "elsewhere")
    (directory / "model.onnx").symlink_to(directory.parent / "elsewhere")


def of_a_newer_format(directory):
    again(directory, about={"format": 2, "versions": {"ppcls": "9.1"}})


def with_fewer_labels(directory):
    again(directory, labels=["red", "green"])


def of_another_size(directory):
    again(directory, size=16)


def again(directory, about=None, labels=None, size=None):
    """Publish it as an export would that says this of it."""
    files = {path.name: path.read_bytes() for path in directory.iterdir() if path.name != MANIFEST}
    description = yaml.safe_load(files["inference.yml"])
    if labels:
        description["PostProcess"]["Topk"]["label_list"] = labels
    if size:
        description["PreProcess"]["transform_ops"][1] = {"ResizeImage": {"size": size}}
    about = about or json.loads((directory / MANIFEST).read_text())["about"]
    with published(directory, KIND, about=about) as partial:
        for name, content in files.items():
            (partial / name).write_bytes(content)
        (partial / "inference.yml").write_text(yaml.safe_dump(description))


REFUSED = {
    "a flipped bit": (flipped, STORAGE, "model.onnx: altered, its sha256"),
    "swapped labels": (with_swapped_labels, STORAGE, "inference.yml: altered, its sha256"),
    "a missing file": (lambda directory: (directory / "model.onnx").unlink(), STORAGE, "model.onnx: missing"),
    "a missing manifest": (
        lambda directory: (directory / MANIFEST).unlink(),
        STORAGE,
        "not complete, it has no manifest",
    ),
    "a link": (linked, STORAGE, "model.onnx: missing, though"),
    "a newer format": (of_a_newer_format, STORAGE, "its format is 2, and this ppcls reads 1"),
    "no bundle": (shutil.rmtree, STORAGE, "there is no such directory"),
    "fewer labels than classes": (with_fewer_labels, CONFIG, "2 labels for 3 classes"),
}


@pytest.mark.promise("F32")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_as_it_was_exported_is_refused(infer, bundle, picture, name):
    change, expected, message = REFUSED[name]
    change(bundle)
    code, said, failure = infer("--bundle", bundle, picture)
    assert (code, said) == (expected, [])
    assert message in failure and str(bundle) in failure and len(failure.splitlines()) == 1


def test_a_preprocessing_that_does_not_suit_the_graph_is_refused(infer, bundle, picture):
    of_another_size(bundle)
    code, _, failure = infer("--bundle", bundle, picture)
    assert code == DATA
    assert "takes float32 images of [3, 32, 32], and its preprocessing makes float32 [3, 16, 16]" in failure


def test_an_image_that_cannot_be_read_is_told_and_the_others_are_answered(infer, bundle, picture, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG")
    code, said, failure = infer("--bundle", bundle, tmp_path / "bad.png", picture)
    assert code == DATA
    assert ["error" in line for line in said] == [True, False]
    assert failure == "1 of 2 images could not be read; their lines say why"
