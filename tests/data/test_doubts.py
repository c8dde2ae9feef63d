# SPDX-License-Identifier: Apache-2.0
"""What a run says about its data before it starts."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ppcls.data import ImageNetDataset
from ppcls.data.doubts import doubts
from ppcls.data.repeats import repeats, shared


@pytest.fixture
def listed(tmp_path):
    """A function that makes a data set of the lines of a list."""

    def make(name, *lines, root="root"):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
        return ImageNetDataset(root, str(tmp_path / name))

    return make


def test_good_lists_raise_no_doubt(listed):
    train = listed("train", "a 0", "b 1", "b 1", "c 2")
    assert list(doubts(train, listed("val", "d 0", "e 1"))) == []
    assert list(doubts(train, None)) == []


def test_classes_without_images_are_named(listed):
    assert list(doubts(listed("train", "a 0", "b 3"), None)) == [
        "DataLoader.Train: 2 of the classes up to 3 have no image (1, 2); the model cannot learn them"
    ]
    assert "(1, 2, 3, 4, 5, ...)" in next(doubts(listed("train", "a 0", "b 9"), None))


def test_an_image_with_two_labels_is_named_with_both_lines(listed, tmp_path):
    train = listed("train", "a 0", "b 1", "", "a 1", "a 0", "b 1", "a 2")
    assert list(doubts(train, None)) == [
        "DataLoader.Train: the same image is listed with different labels, 2 times, such as "
        f"0 in {tmp_path}/train:1 and 1 in {tmp_path}/train:4; tools/check_data.py names them all"
    ]


def test_images_to_evaluate_on_that_are_trained_on_are_counted(listed, tmp_path):
    train = listed("train", "a 0", "b 0", "c 0")
    found = list(doubts(train, listed("val", "x 0", "", "c 0", "b 0")))
    assert len(found) == 1
    assert found[0].startswith(
        f"DataLoader.Eval: 2 of 3 images are trained on too, such as that of {tmp_path}/val:3 in {tmp_path}/train:3; "
    )
    assert list(doubts(train, listed("val", "c 0", root="elsewhere"))) == []


def test_repeats_and_shared_are_those_of_a_plain_loop():
    draw = random.Random(3)
    for size in (0, 1, 2, 10, 200):
        keys = [draw.randrange(size + 1) for _ in range(size)]
        places: dict[int, list[int]] = {}
        for position, key in enumerate(keys):
            places.setdefault(key, []).append(position)
        found = [group.tolist() for group in repeats(np.array(keys, np.uint64))]
        assert found == [group for group in places.values() if len(group) > 1]
        others = [draw.randrange(2 * size + 2) for _ in range(50)]
        positions, firsts = shared(np.array(keys, np.uint64), np.array(others, np.uint64))
        expected = [(position, places[key][0]) for position, key in enumerate(others) if key in places]
        assert list(zip(positions.tolist(), firsts.tolist())) == expected
