# SPDX-License-Identifier: Apache-2.0
"""Images divided into parts."""

from __future__ import annotations

import hashlib
import random
from collections import Counter

import numpy as np
import pytest

from ppcls.data.split import TEST, TRAIN, VAL, split


def images(counts):
    """Names and labels of so many images a class, each of a content of its own."""
    names = [f"{label}/{number}.jpg" for label, count in enumerate(counts) for number in range(count)]
    labels = [int(name.partition("/")[0]) for name in names]
    return names, labels, list(names)


def test_each_class_is_divided_alike():
    names, labels, contents = images([10, 100, 57, 4])
    parts = split(names, labels, contents, 0.2, 0.1, 0)
    for label, expected in enumerate([(7, 2, 1), (70, 20, 10), (40, 11, 6), (2, 1, 1)]):
        counts = Counter(int(part) for part, own in zip(parts, labels) if own == label)
        assert (counts[TRAIN], counts[VAL], counts[TEST]) == expected


@pytest.mark.parametrize(("count", "expected"), [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1))])
def test_a_small_class_is_trained_on_first(count, expected):
    parts = split(*images([count]), 0.1, 0.1, 0)
    assert tuple(int((parts == part).sum()) for part in (TRAIN, VAL, TEST)) == expected


def test_the_names_and_the_seed_decide_and_nothing_else():
    names, labels, contents = images([30, 30])
    parts = dict(zip(names, split(names, labels, contents, 0.3, 0.0, 5)))
    order = list(range(len(names)))
    random.Random(0).shuffle(order)
    mixed = split(*([column[index] for index in order] for column in (names, labels, contents)), 0.3, 0.0, 5)
    assert dict(zip([names[index] for index in order], mixed)) == parts
    others = dict(zip(names, split(names, labels, contents, 0.3, 0.0, 6)))
    assert others != parts
    # The first of a class by the digest of "seed/name" are for validation.
    ranked = sorted(names[:30], key=lambda name: hashlib.sha256(f"5/{name}".encode()).digest())
    assert {name for name in names[:30] if parts[name] == VAL} == set(ranked[:9])


def test_copies_stay_together_also_across_classes():
    names, labels, contents = images([40, 40])
    draw = random.Random(1)
    contents = [f"content {draw.randrange(30)}" for _ in contents]
    parts = split(names, labels, contents, 0.3, 0.2, 0)
    assert set(parts) == {TRAIN, VAL, TEST}
    for content in set(contents):
        assert len({int(part) for part, own in zip(parts, contents) if own == content}) == 1


def test_a_class_of_copies_is_trained_on():
    names, labels, _ = images([6])
    assert not split(names, labels, ["one"] * 6, 0.5, 0.0, 0).any()


def test_without_parts_all_is_for_training():
    parts = split(*images([5]), 0.0, 0.0, 0)
    assert parts.dtype == np.uint8 and not parts.any()


@pytest.mark.parametrize(("val", "test"), [(-0.1, 0), (1.0, 0), (0, 1.5), (0.6, 0.4)])
def test_parts_that_leave_nothing_are_refused(val, test):
    with pytest.raises(ValueError, match="parts of 1"):
        split(*images([5]), val, test, 0)
