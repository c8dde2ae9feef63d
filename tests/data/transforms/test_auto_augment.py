# SPDX-License-Identifier: Apache-2.0
"""What AutoAugment and RandAugment draw: which operations, how often, and how strong."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from ppcls.data.rng import SampleRng
from ppcls.data.transforms import AutoAugment, RandAugment, RandAugmentV2, RandAugmentV3, RandAugmentV4
from ppcls.data.transforms.augment_ops import Step, apply_steps
from ppcls.data.transforms.searched_policies import ORIGINAL

IMAGE = np.random.RandomState(7).randint(0, 256, (37, 53, 3)).astype("uint8")
POLICIES = [AutoAugment, RandAugment, RandAugmentV2, RandAugmentV3, RandAugmentV4]
BARE = {"auto_contrast", "equalize", "invert"}
FACTORS = {"color", "contrast", "sharpness", "brightness"}


def drawn(policy, num=3000, image=IMAGE):
    return [policy.draw(SampleRng(0, 1, index), image) for index in range(num)]


def assert_count(count, num, probability):
    """Within five standard deviations of the binomial distribution."""
    assert abs(count - num * probability) < 5 * math.sqrt(num * probability * (1 - probability)) + 1e-9


def arguments(policy, num=3000):
    """Every argument that each operation is drawn with."""
    found = {}
    for steps in drawn(policy, num):
        for step in steps:
            found.setdefault(step.name, set()).add(step.argument)
    return found


def signed(around, size):
    return {around - size, around + size}


def same(found, expected):
    if None in expected:
        return found == expected
    return sorted(found) == pytest.approx(sorted(expected), abs=1e-9)


@pytest.mark.parametrize("magnitude", [3, 5, 7.5, 10])
def test_arguments_of_rand_augment_follow_the_formulas(magnitude):
    level = magnitude / 10
    expected = {name: {None} for name in BARE} | {name: signed(1, 0.9 * level) for name in FACTORS}
    expected |= {name: signed(0, 0.3 * level) for name in ("shear_x", "shear_y")}
    expected |= {name: signed(0, 150 / 331 * level) for name in ("translate_x", "translate_y")}
    expected |= {"rotate": {30 * level}, "posterize": {math.floor(4 * level)}, "solarize": {256 * level}}
    found = arguments(RandAugment(magnitude=magnitude))
    assert found.keys() == expected.keys()
    for name in expected:
        assert same(found[name], expected[name]), name


@pytest.mark.parametrize("magnitude", [5, 8, 15])
def test_arguments_of_the_second_version_follow_the_formulas(magnitude):
    level = magnitude / 10
    expected = {name: {None} for name in BARE} | {name: {1.8 * level + 0.1} for name in FACTORS}
    expected |= {name: signed(0, 0.3 * level) for name in ("shear_x", "shear_y")}
    expected |= {name: signed(0, 100 * level) for name in ("translate_x_pixels", "translate_y_pixels")}
    expected |= {"rotate": signed(0, 30 * level), "posterize": {math.floor(4 * level)}}
    expected |= {"solarize": {math.floor(256 * level)}, "solarize_add": {math.floor(110 * level)}}
    found = arguments(RandAugmentV2(magnitude=magnitude, fillcolor=(100, 0, 0)))
    holes = found.pop("cutout")
    assert found.keys() == expected.keys()
    for name in expected:
        assert same(found[name], expected[name]), name
    assert {hole[2:] for hole in holes} == {(math.floor(40 * level), 100)}


@pytest.mark.parametrize("magnitude", [3, 9])
def test_arguments_of_the_third_version_follow_the_formulas(magnitude):
    level = magnitude / 10
    expected = {name: {None} for name in BARE} | {name: signed(1, 0.9 * level) for name in FACTORS}
    expected |= {name: signed(0, 0.3 * level) for name in ("shear_x", "shear_y")}
    expected |= {name: signed(0, 150 / 331 * level) for name in ("translate_x", "translate_y")}
    expected |= {"rotate": signed(0, 30 * level), "posterize": {8 - math.floor(4 * level)}}
    expected |= {"solarize": {255 * (1 - level)}}
    found = arguments(RandAugmentV3(magnitude=magnitude))
    assert found.keys() == expected.keys()
    for name in expected:
        assert same(found[name], expected[name]), name


def test_the_middles_of_holes_lie_anywhere_in_the_image():
    policy = RandAugmentV2(num_layers=16)
    holes = [step.argument for steps in drawn(policy, 2000) for step in steps if step.name == "cutout"]
    rows, columns = [hole[0] for hole in holes], [hole[1] for hole in holes]
    assert set(rows) == set(range(38)) and set(columns) == set(range(54))
    assert abs(np.mean(rows) - 18.5) < 1 and abs(np.mean(columns) - 26.5) < 1.5


@pytest.mark.parametrize(
    ("policy", "num_operations"),
    [(RandAugment(num_layers=3), 14), (RandAugmentV2(), 16), (RandAugmentV3(num_layers=1), 14)],
)
def test_as_many_operations_as_layers_all_as_likely(policy, num_operations):
    lists = drawn(policy)
    assert {len(steps) for steps in lists} == {policy.num_layers}
    counts = Counter(step.name for steps in lists for step in steps)
    assert len(counts) == num_operations
    for count in counts.values():
        assert_count(count, 3000 * policy.num_layers, 1 / num_operations)


def test_half_of_the_signs_are_negative():
    steps = [step for steps in drawn(RandAugment(), 6000) for step in steps if step.name == "shear_x"]
    assert_count(sum(step.argument < 0 for step in steps), len(steps), 0.5)


def test_interpolation_is_that_of_each_version():
    def interpolations(policy, *names):
        return {step.interpolation for steps in drawn(policy, 1000) for step in steps if step.name in names}

    assert interpolations(RandAugment(), "shear_x", "shear_y") == {"bicubic"}
    assert interpolations(RandAugment(), "translate_x", "rotate") == {"nearest"}
    assert interpolations(RandAugmentV2(), "shear_x", "translate_x_pixels", "rotate") == {"nearest"}
    moves = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
    assert interpolations(RandAugmentV3(), *moves) == {"bicubic"}
    assert interpolations(RandAugmentV3(interpolation="bilinear"), *moves) == {"bilinear"}
    assert interpolations(AutoAugment(), "shear_x") == {"bicubic"}


def test_auto_augment_draws_each_operation_as_often_as_its_pairs_say():
    assert len(ORIGINAL) == 25
    counts = Counter(step.name for steps in drawn(AutoAugment(), 8000) for step in steps)
    expected = Counter()
    for pair in ORIGINAL:
        for name, probability, _ in pair:
            expected[name] += probability / 25
    assert counts.keys() == expected.keys()
    for name, mean in expected.items():
        # Each image adds 0, 1 or 2, and so varies by no more than 4 times the mean of the rarer.
        assert abs(counts[name] - 8000 * mean) < 5 * math.sqrt(8000 * 2 * mean), name


def test_auto_augment_has_the_ten_magnitudes_of_the_paper():
    found = arguments(AutoAugment(), 8000)
    # Indices 8, 7, 6 and 5 of 8..4 bits; 5, 4, 3, 8 and 7 of 256..0; 9, 8 and 3 of 0..30 degrees.
    assert found["posterize"] == {4, 5, 6} and {round(8 - 4 * index / 9) for index in (5, 6, 7, 8)} == {4, 5, 6}
    assert same(found["solarize"], {256 - 256 * index / 9 for index in (3, 4, 5, 7, 8)})
    assert same(found["rotate"], {30 * index / 9 for index in (3, 8, 9)})
    assert same(found["shear_x"], signed(0, 0.3 * 5 / 9))
    assert same(found["contrast"], signed(1, 0.9 * 8 / 9))
    assert same(found["sharpness"], signed(1, 0.9 * 7 / 9))
    assert same(found["color"], {1.0} | {1 + sign * 0.1 * index for index in (2, 4, 8) for sign in (-1, 1)})


def test_the_fourth_version_does_none_one_or_two_of_135_choices():
    lists = drawn(RandAugmentV4(), 6000)
    lengths = Counter(map(len, lists))
    for length, probability in ((0, 0.25), (1, 0.5), (2, 0.25)):
        assert_count(lengths[length], 6000, probability)
    counts = Counter(step.name for steps in lists for step in steps)
    assert len(counts) == 15
    for count in counts.values():
        assert_count(count, sum(counts.values()), 1 / 15)
    found = arguments(RandAugmentV4(), 6000)
    assert {hole[2:] for hole in found["cutout"]} == {(round(20 * index / 9), 0) for index in range(1, 10)}
    assert same(found["rotate"], {30 * index / 9 for index in range(1, 10)})


@pytest.mark.parametrize("policy", POLICIES)
def test_draws_repeat_and_apply_needs_no_randomness(policy):
    policy = policy()
    before = IMAGE.copy()
    for index in range(40):
        steps = policy.draw(SampleRng(3, 2, index), IMAGE)
        assert steps == policy.draw(SampleRng(3, 2, index), IMAGE)
        changed = policy.apply(IMAGE, steps)
        np.testing.assert_array_equal(changed, policy.apply(IMAGE, steps))
        np.testing.assert_array_equal(changed, policy(IMAGE, SampleRng(3, 2, index)))
        assert changed.shape == IMAGE.shape and changed.dtype == np.uint8
        assert all(isinstance(step, Step) for step in steps)
    np.testing.assert_array_equal(IMAGE, before)


def test_draws_look_at_nothing_but_the_shape():
    class Shape:
        shape = (37, 53, 3)

    for policy in POLICIES:
        for index in range(50):
            assert policy().draw(SampleRng(0, 1, index), Shape()) == policy().draw(SampleRng(0, 1, index), IMAGE)


@pytest.mark.parametrize("policy", [AutoAugment, RandAugment, RandAugmentV2, RandAugmentV3])
def test_the_fill_colour_is_used_for_all_moves(policy):
    fill = (9, 99, 199)
    for step in (Step("rotate", 30.0), Step("shear_x", 0.3), Step("translate_y", 0.4)):
        np.testing.assert_array_equal(policy(fillcolor=fill).apply(IMAGE, [step]), apply_steps(IMAGE, [step], fill))


@pytest.mark.parametrize(
    ("policy", "settings", "message"),
    [
        (RandAugment, {"num_layers": 0}, "num_layers must be at least 1; got 0"),
        (RandAugmentV3, {"magnitude": -1}, "magnitude must be 0 or more, and finite; got -1"),
        (RandAugment, {"magnitude": float("inf")}, "magnitude must be 0 or more, and finite; got inf"),
        (RandAugmentV2, {"magnitude": float("inf")}, "magnitude must be 0 or more, and finite; got inf"),
        (AutoAugment, {"fillcolor": (1, 2)}, r"fillcolor must be red, green and blue within 0..255; got \[1, 2\]"),
        (RandAugmentV2, {"fillcolor": (0, 0, 256)}, r"fillcolor must be red, green and blue within 0..255"),
        (RandAugmentV2, {"progress_magnitude": [5, 10]}, "progress_magnitude is not supported; write the magnitude"),
    ],
)
def test_settings_that_mean_nothing_are_refused(policy, settings, message):
    with pytest.raises(ValueError, match=message):
        policy(**settings)
