# SPDX-License-Identifier: Apache-2.0
"""The data set that is shipped: intact, as described, and reproducible."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

from ppcls.data import ImageNetDataset, Topk

DATASET = Path(__file__).resolve().parents[2] / "dataset"
ROOT = DATASET / "digits"


def load(name: str) -> ImageNetDataset:
    return ImageNetDataset(str(ROOT), str(ROOT / name))


def pixels(dataset: ImageNetDataset) -> list[bytes]:
    return [dataset.sample(index)[0].tobytes() for index in range(len(dataset))]


def test_the_lists_have_every_image_once():
    train, val = load("train_list.txt"), load("val_list.txt")
    assert (len(train), len(val)) == (1438, 359)
    listed = [*train.paths, *val.paths]
    assert len(set(listed)) == 1797
    assert set(listed) == {path.relative_to(ROOT).as_posix() for path in ROOT.glob("images/*/*.png")}


def test_every_class_is_split_alike():
    train, val = load("train_list.txt").class_counts, load("val_list.txt").class_counts
    # UCI's description of the test part: samples per class 0..9.
    assert (train + val).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert val.tolist() == [round(0.2 * count) for count in train + val]
    load("train_list.txt").check_labels(10)


def test_no_image_is_in_both_lists():
    train, val = pixels(load("train_list.txt")), pixels(load("val_list.txt"))
    assert all(len(image) == 3 * 8 * 8 for image in train + val)
    assert len(set(train + val)) == 1797


def test_labels_are_the_folders_and_have_names():
    for name in ("train_list.txt", "val_list.txt"):
        dataset = load(name)
        assert [int(path.split("/")[1]) for path in dataset.paths] == dataset.labels.tolist()
    names = Topk(10, str(ROOT / "label_list.txt"))(np.arange(10, 0, -1, dtype=np.float32)[None])[0]["label_names"]
    assert names == ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def test_it_is_small():
    assert sum(path.stat().st_size for path in ROOT.rglob("*") if path.is_file()) < 2**20


def test_the_images_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    spec = importlib.util.spec_from_file_location("make_digits", DATASET / "make_digits.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    is_validation = module.validation_mask(digits.target)
    for name, chosen in (("train_list.txt", ~is_validation), ("val_list.txt", is_validation)):
        dataset = load(name)
        assert [int(Path(path).stem) for path in dataset.paths] == np.flatnonzero(chosen).tolist()
        for path, image, label in zip(dataset.paths, digits.images[chosen], digits.target[chosen]):
            stored = cv2.imread(str(ROOT / path), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(stored, np.floor(image * 255 / 16 + 0.5))
            assert path.startswith(f"images/{label}/")
