# SPDX-License-Identifier: Apache-2.0
"""`tools/show_transforms.py` as a person calls it."""

import resource
import runpy
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import toys

from ppcls.utils.grid import GAP, MARGIN, TEXT_HEIGHT

ROOT = Path(__file__).resolve().parents[2]
MIX = "DataLoader.Train.dataset.batch_transform_ops=[{MixupOperator: {alpha: 1.0}}]"


def picture(path):
    return cv2.imread(str(path))


@pytest.fixture
def show(tmp_path, monkeypatch, capfd):
    """Run the tool on the toy recipe: (exit code, stdout, stderr)."""
    toys.write_yaml(tmp_path, toys.write_data(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["show_transforms.py", "-c", "toy.yaml", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / "tools" / "show_transforms.py"), run_name="__main__")
        return end.value.code, *capfd.readouterr()

    return run


def test_the_first_images_of_the_data_set_are_drawn_with_their_originals(show, tmp_path):
    assert show() == (0, "transforms.png\n", "")
    sheet = picture("transforms.png")
    # Images of 16 x 16 pixels, eight times as large.
    assert sheet.shape[1] == 2 * MARGIN + 7 * (128 + GAP) - GAP
    for row in range(4):
        top = MARGIN + TEXT_HEIGHT + row * (TEXT_HEIGHT + 128 + GAP) + TEXT_HEIGHT
        cell = sheet[top : top + 128, MARGIN : MARGIN + 128]
        stored = picture(tmp_path / "data" / "images" / str(row) / f"{row:03}.png")
        np.testing.assert_array_equal(cell[::8, ::8], stored)


def test_the_same_seed_draws_the_same_and_another_does_not(show):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        assert show("--output", f"{name}.png", "-o", f"Global.seed={seed}", "--num", 2, "--epochs", 3)[0] == 0
    first, second, other = (picture(f"{name}.png") for name in "abc")
    np.testing.assert_array_equal(first, second)
    # The originals are the same, all that is drawn differs.
    np.testing.assert_array_equal(first[:150, : MARGIN + 128], other[:150, : MARGIN + 128])
    assert (first[40:150, MARGIN + 134 :] != other[40:150, MARGIN + 134 :]).any()


def test_a_full_disk_leaves_no_part_of_a_picture(show, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # bytes a file
    try:
        result = show("--output", "full.png")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result == (5, "", "full.png: cannot be written (File too large)\n")
    assert not (tmp_path / "full.png").exists()


def test_images_may_be_named_and_the_data_set_need_not_be_there(show, tmp_path):
    shutil.move(tmp_path / "data" / "images" / "1", tmp_path / "grass")
    shutil.rmtree(tmp_path / "data")
    one, two = sorted((tmp_path / "grass").iterdir())[:2]
    heights = []
    for arguments in ([one], [one, two], [tmp_path / "grass", "--num", 3], [tmp_path / "grass"]):
        assert show("--images", *arguments)[0] == 0
        heights.append(len(picture("transforms.png")))
    assert np.diff(heights).tolist() == [TEXT_HEIGHT + 128 + GAP] * 3


def test_what_a_batch_is_mixed_to_has_rows_of_its_own(show):
    assert show("--num", 2)[0] == 0
    without = len(picture("transforms.png"))
    assert show("--num", 2, "-o", MIX)[0] == 0
    assert len(picture("transforms.png")) >= without + 2 * 128


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--images", "nowhere.jpg"], 3, "nowhere.jpg: cannot be read (No such file or directory)"),
        (["--images", "."], 3, "data/broken.png: "),
        (["--images", "empty"], 3, "--images: empty: no images (.jpg, "),
        (["--output", "nowhere/a.png"], 5, "nowhere/a.png: cannot be written (No such file or directory)"),
        (["-o", "DataLoader.Train=null"], 2, "DataLoader.Train"),
        (["-o", "Global.epohcs=3"], 2, "-o Global.epohcs=3: Global.epohcs: Global has no parameter 'epohcs'"),
        (["-o", "DataLoader.Train.dataset.cls_label_path=x.txt"], 3, "x.txt"),
        (["-o", "DataLoader.Train.dataset.transform_ops=[{RandomCropImage: {size: 20}}]"], 3, "cannot cut 20 x 20"),
    ],
)
def test_an_error_is_one_line(show, tmp_path, arguments, code, message):
    (tmp_path / "empty").mkdir()
    if "." in arguments:
        (tmp_path / "data" / "broken.png").write_bytes(b"\x89PNG")
    ended, out, err = show(*arguments)
    assert (ended, out) == (code, "")
    assert message in err and len(err.splitlines()) == 1, err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num", 0], "--num and --epochs must be at least 1"),
        (["--epochs", -1], "--num and --epochs must be at least 1"),
        (["--output", "a.jpg"], "--output must end in .png; got a.jpg"),
    ],
)
def test_wrong_arguments_are_told(show, arguments, message):
    code, _, err = show(*arguments)
    assert code == 2 and err.endswith(f"error: {message}\n")


def test_help_names_examples(process):
    done = process("show_transforms", "--help")
    assert done.returncode == 0 and "--images PLACE" in done.stdout
    assert "python tools/show_transforms.py -c configs/quick_start/digits.yaml" in done.stdout
