# SPDX-License-Identifier: Apache-2.0
import cv2
import numpy as np
import pytest

from ppcls.data import ImageFolder
from ppcls.utils.errors import DataError


def add_image(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((8, 8, 3), value, np.uint8))


@pytest.fixture
def root(tmp_path):
    for path in ("b/2.png", "b/1.JPG", "a/x/deep.jpeg", "c d/图.png"):
        add_image(tmp_path / "train" / path)
    (tmp_path / "train" / "a" / "notes.txt").write_text("no image")
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "stray.png").write_bytes(b"")
    return tmp_path / "train"


def test_classes_are_numbered_by_sorted_name_and_images_sorted_within(root):
    dataset = ImageFolder(str(root))
    assert dataset.class_names == ["a", "b", "c d"]
    assert [path.removeprefix(f"{root}/") for path in dataset.paths] == [
        "a/x/deep.jpeg",
        "b/1.JPG",
        "b/2.png",
        "c d/图.png",
    ]
    assert dataset.labels.tolist() == [0, 1, 1, 2]
    assert dataset.sample(3)[0].shape == (3, 8, 8)


def test_an_empty_class_is_named(root):
    (root / "aa").mkdir()
    (root / "zz").mkdir()
    with pytest.raises(DataError, match=r"train/aa and 1 more: a class folder without images .*; fill or remove it"):
        ImageFolder(str(root))


def test_a_folder_without_class_folders_and_no_folder_at_all(tmp_path):
    with pytest.raises(DataError, match=r"no class folders in it; expected .*<class>"):
        ImageFolder(str(tmp_path))
    with pytest.raises(DataError, match="image_root: nowhere: cannot be read .*; paths start from"):
        ImageFolder("nowhere")


def test_an_unreadable_image_is_named(root):
    (root / "b" / "2.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"b/2\.png: not an image"):
        ImageFolder(str(root)).sample(2)


def test_a_label_beyond_the_model_says_what_to_set(root):
    with pytest.raises(DataError, match=r"label 2 is outside 0\.\.1 .*; set Arch.class_num to 3$"):
        ImageFolder(str(root)).check_labels(2)


def test_classes_are_numbered_as_the_model_knows_them(root):
    dataset = ImageFolder(str(root))
    dataset.use_class_names(["0", "a", "aa", "b", "c d"])
    assert dataset.labels.tolist() == [1, 3, 3, 4]
    with pytest.raises(DataError, match=r"the class 'a' \(1 such\) is not one of the 2 that the model is trained on"):
        ImageFolder(str(root)).use_class_names(["b", "c d"])


@pytest.mark.parametrize("target", ["..", "."])
def test_a_link_that_leads_back_is_refused(root, target):
    (root / "b" / "self").symlink_to(target)
    with pytest.raises(DataError, match=r"b/self: a link leads back to a folder that is read already"):
        ImageFolder(str(root))
