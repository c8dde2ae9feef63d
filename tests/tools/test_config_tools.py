# SPDX-License-Identifier: Apache-2.0
"""`tools/check_config.py` and `tools/list.py` as a person calls them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PADDLECLAS = ROOT / "tests" / "config" / "densenet121_paddleclas.yaml"


@pytest.fixture
def tool(tmp_path):
    """Run a tool in a directory of its own; give exit code, stdout and stderr."""

    def run(name, *arguments):
        command = [sys.executable, str(ROOT / "tools" / name), *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.mark.parametrize("name", ["check_config.py", "doctor.py", "list.py"])
def test_help_is_shown_before_anything_slow_is_imported(name):
    command = [sys.executable, "-X", "importtime", str(ROOT / "tools" / name), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0
    assert "python tools/" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert imported.isdisjoint({"paddle", "numpy", "cv2"})


def test_a_good_file_is_ok(tool):
    code, out, err = tool("check_config.py", "-c", PADDLECLAS)
    assert (code, out) == (0, f"{PADDLECLAS}: ok\n")
    assert all("there is no ./dataset/ILSVRC2012/" in line for line in err.splitlines())


def test_paths_that_are_not_here_are_warned_about(tool, tmp_path):
    code, _, err = tool("check_config.py", "-c", PADDLECLAS, "-o", f"DataLoader.Eval.dataset.image_root={tmp_path}")
    warned = [line.partition(": DataLoader.")[2].partition(": ")[0] for line in err.splitlines()]
    assert code == 0
    assert warned == ["Train.dataset.cls_label_path", "Train.dataset.image_root", "Eval.dataset.cls_label_path"]


def test_a_warning_goes_to_stderr(tool):
    code, out, err = tool("check_config.py", "-c", PADDLECLAS, "-o", "Optimizer.lr.step_each_epoch=9")
    assert (code, out) == (0, f"{PADDLECLAS}: ok\n")
    assert err.startswith("warning: -o Optimizer.lr.step_each_epoch=9: Optimizer.lr.step_each_epoch: has no effect")


def test_every_error_is_a_line_on_stderr_and_the_exit_code_2(tool, tmp_path):
    (tmp_path / "x.yaml").write_text("Global:\n  epohcs: 1\nArch:\n  name: DenseNet12\n")
    assert tool("check_config.py", "-c", "x.yaml", "-o", "Global.seed=x") == (
        2,
        "",
        "x.yaml:2: Global.epohcs: Global has no parameter 'epohcs'; did you mean 'epochs'?\n"
        "-o Global.seed=x: Global.seed: expected a whole number; got 'x'\n"
        "x.yaml:4: Arch: unknown architecture 'DenseNet12'; did you mean 'DenseNet121'?\n",
    )


def test_the_printed_file_can_be_checked_again(tool, tmp_path):
    code, out, err = tool("check_config.py", "-c", PADDLECLAS, "-o", "Global.epochs=3", "--print")
    assert code == 0
    assert "# -o Global.epochs=3" in out
    assert "# default" in out
    (tmp_path / "printed.yaml").write_text(out)
    assert tool("check_config.py", "-c", "printed.yaml")[:2] == (0, "printed.yaml: ok\n")
    assert out.endswith(
        "# DataLoader.Train: where each operation runs\n"
        "#   in the workers, each image:    DecodeImage, RandCropImage, RandFlipImage\n"
        "#   on the device, whole batches:  NormalizeImage\n"
        "# DataLoader.Eval: where each operation runs\n"
        "#   in the workers, each image:    DecodeImage, ResizeImage, CropImage\n"
        "#   on the device, whole batches:  NormalizeImage\n"
    )


def test_operations_in_an_order_that_cannot_be_are_exit_code_2(tool):
    ops = "DataLoader.Train.dataset.transform_ops=[DecodeImage: , ToCHWImage: , ResizeImage: {size: 8}]"
    code, out, err = tool("check_config.py", "-c", PADDLECLAS, "-o", ops, "--print")
    assert code == 2
    assert err.endswith("ResizeImage takes images [H, W, C], ToCHWImage makes [C, H, W]; put ResizeImage before it\n")


def test_a_missing_file_is_exit_code_2(tool):
    code, out, err = tool("check_config.py", "-c", "gone.yaml")
    assert (code, out) == (2, "")
    assert err.startswith("gone.yaml: there is no such file")


def test_everything_is_listed(tool):
    code, out, err = tool("list.py")
    assert (code, err) == (0, "")
    for text in ("architectures (", "  DenseNet121(class_num=1000, ", "transforms (", "  CropImage(size)", "losses ("):
        assert text in out


def test_a_kind_lists_only_that_kind(tool):
    _, out, _ = tool("list.py", "optimizers")
    assert out.startswith("optimizers (")
    assert "  Momentum(momentum=0.9, use_nesterov=false, " in out
    assert "architectures" not in out


def test_what_the_framework_supplies_is_not_listed(tool):
    _, out, _ = tool("list.py", "schedules")
    assert "step_each_epoch" not in out
    assert "learning_rate" in out


def test_a_block_whose_keys_are_names_is_told_apart(tool):
    _, out, _ = tool("list.py", "OpSampler")
    assert "OpSampler(<ops>)" in out


def test_a_part_of_a_name_lists_what_contains_it(tool):
    _, out, _ = tool("list.py", "crop")
    names = [line.strip().partition("(")[0] for line in out.splitlines() if line.startswith("  ") and line[2] != " "]
    assert {"CropImage", "RandCropImage"} <= set(names)
    assert all("crop" in name.lower() for name in names)


def test_sections_are_listed_with_defaults_and_help(tool):
    _, out, _ = tool("list.py", "sections")
    assert "Global\n    The run as a whole.\n" in out
    assert "  epochs: 1\n      passes over the training set.\n" in out
    assert "EMA (may be left out)\n" in out
    assert "  use_visualdl: false\n" in out


def test_an_unknown_filter_is_exit_code_2_with_a_suggestion(tool):
    assert tool("list.py", "architectuers") == (
        2,
        "",
        "nothing is called 'architectuers'; did you mean 'architectures'?\n",
    )


def test_data_that_lies_elsewhere_is_not_called_missing(tool, tmp_path):
    (tmp_path / "x.yaml").write_text(f"_base_: {ROOT}/configs/CIFAR10/TinyDarkNet.yaml\n", encoding="utf-8")
    key = "DataLoader.Train.dataset.data_file"
    for place, is_missing in (
        ("s3://bucket/cifar.zip", False),
        ("nowhere.tar.gz", True),
        (f"{tmp_path}/x.yaml!/a", False),
    ):
        code, _, err = tool("check_config.py", "-c", str(tmp_path / "x.yaml"), "-o", f"{key}={place}")
        assert (code, "there is no" in err) == (0, is_missing), err
