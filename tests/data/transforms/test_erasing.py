# SPDX-License-Identifier: Apache-2.0
"""What is taken out of images: where, how often, and what stands there afterwards."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from ppcls.data.rng import SampleRng
from ppcls.data.transforms import Cutout, GridMask, HideAndSeek, NormalizeImage, RandomErasing
from ppcls.data.transforms.erasing import ErasedArea, Holes, normal_noise
from ppcls.data.transforms.hiding import Bars, HiddenTiles

NOISE = np.random.RandomState(7).randint(1, 256, (37, 53, 3)).astype("uint8")
NORMALIZED = NormalizeImage(order="")(NOISE)
PHOTO = np.random.RandomState(8).randint(1, 256, (224, 224, 3)).astype("uint8")
EVERY = [RandomErasing(EPSILON=0.8), Cutout(length=12), HideAndSeek(), GridMask(d1=8, d2=16, rotate=30)]
EVERY += [RandomErasing(mode="pixel"), RandomErasing(mode="rand"), Cutout(n_holes=3, length=9, fill_value=None)]


def drawn(transform, image=NOISE, num=3000):
    return [transform.draw(SampleRng(0, 1, index), image) for index in range(num)]


def assert_count(count, num, probability):
    """Within five standard deviations of the binomial distribution."""
    assert abs(count - num * probability) < 5 * math.sqrt(num * probability * (1 - probability)) + 1e-9


def test_epsilon_is_the_share_of_erased_images():
    assert_count(sum(area is not None for area in drawn(RandomErasing(EPSILON=0.25, sh=0.1))), 3000, 0.25)
    assert not any(drawn(RandomErasing(EPSILON=0), num=100))


@pytest.mark.parametrize("is_log", [False, True])
def test_rectangles_have_the_areas_and_ratios_of_the_yaml(is_log):
    areas = drawn(RandomErasing(EPSILON=1, sl=0.1, sh=0.2, r1=0.5, use_log_aspect=is_log), PHOTO)
    assert None not in areas
    shares = np.array([area.height * area.width for area in areas]) / 224**2
    assert 0.098 < shares.min() < 0.103 and 0.197 < shares.max() < 0.203
    assert abs(shares.mean() - 0.15) < 5 * 0.1 / math.sqrt(12 * 3000) + 0.001
    ratios = np.array([area.height / area.width for area in areas])
    assert 0.48 < ratios.min() < 0.52 and 1.93 < ratios.max() < 2.07
    mean = 1 if is_log else math.exp((2 * math.log(2) - 0.5 * math.log(0.5)) / 1.5 - 1)
    assert abs(np.log(ratios).mean() - math.log(mean)) < 0.05
    tops = [area.top / (224 - area.height) for area in areas]
    lefts = [area.left / (224 - area.width) for area in areas]
    for places in (tops, lefts):
        assert min(places) == 0 and max(places) == 1 and abs(np.mean(places) - 0.5) < 5 / math.sqrt(12 * 3000)


def test_a_rectangle_that_does_not_fit_is_drawn_again_as_often_as_the_yaml_says():
    # Of half the area, ratios above 2 are too high for a square image, those below 1/2 too wide.
    once = RandomErasing(EPSILON=1, sl=0.5, sh=0.5, r1=0.25, attempt=1)
    fits = (2 - 0.5) / (4 - 0.25)
    assert_count(sum(area is not None for area in drawn(once, PHOTO)), 3000, fits)
    twice = RandomErasing(EPSILON=1, sl=0.5, sh=0.5, r1=0.25, attempt=2)
    assert_count(sum(area is not None for area in drawn(twice, PHOTO)), 3000, 1 - (1 - fits) ** 2)
    assert not any(drawn(RandomErasing(EPSILON=1, sl=1, sh=1), num=100))


@pytest.mark.parametrize(
    ("image", "mean"), [(NORMALIZED, (0.25, -1.5, 0.0)), (NOISE, (124.0, 116.0, 103.0)), (NOISE, (0.0, 0.0, 0.0))]
)
def test_const_fills_with_the_mean(image, mean):
    erased = RandomErasing(mean=mean).apply(image, ErasedArea(5, 8, 20, 30))
    expected = image.copy()
    expected[5:25, 8:38] = mean
    np.testing.assert_array_equal(erased, expected)
    assert erased.dtype == image.dtype


def test_noise_is_normally_distributed_where_images_are_normalized():
    image = NormalizeImage(order="")(PHOTO)
    area = ErasedArea(10, 20, 150, 180, seed=3)
    noise = RandomErasing(mode="pixel").apply(image, area)[10:160, 20:200]
    assert abs(noise.mean()) < 5 / math.sqrt(noise.size) and abs(noise.std() - 1) < 0.02
    # A third of a normal distribution lies beyond one deviation, a twentieth beyond two.
    assert_count((np.abs(noise) > 1).sum(), noise.size, math.erfc(1 / math.sqrt(2)))
    assert_count((np.abs(noise) > 2).sum(), noise.size, math.erfc(2 / math.sqrt(2)))
    assert np.abs(np.corrcoef(noise.reshape(-1, 3).T) - np.eye(3)).max() < 0.04
    colours = [RandomErasing(mode="rand").apply(image, area._replace(seed=seed))[10:160, 20:200] for seed in range(400)]
    assert all((colour == colour[0, 0]).all() for colour in colours)
    values = np.array([colour[0, 0] for colour in colours])
    assert abs(values.mean()) < 5 / math.sqrt(1200) and abs(values.std() - 1) < 0.1


@pytest.mark.parametrize("mode", ["rand", "pixel"])
def test_noise_before_normalizing_is_what_becomes_the_noise_behind_it(mode):
    area = ErasedArea(3, 4, 30, 40, seed=11)
    erasing = RandomErasing(mode=mode)
    before = NormalizeImage(order="")(erasing.apply(NOISE, area))
    behind = erasing.apply(NORMALIZED, area)
    lowest, highest = (
        NormalizeImage(order="")(np.array([[[0] * 3]], "uint8")),
        NormalizeImage(order="")(np.array([[[255] * 3]], "uint8")),
    )
    assert np.abs(before - np.clip(behind, lowest, highest)).max() <= 0.5 / 255 / 0.224 + 1e-5


def test_noise_follows_from_the_seed_by_the_formula():
    # Philox4x64-10 with the key [5, 0] and the counter [1, 0, 0, 0]: NumPy documents its raw numbers as stable.
    raw = np.random.Philox(key=5).random_raw(2)
    numbers = normal_noise(5, (3,))
    pairs = [(((int(word) >> 32) + 1) / 2**32, (int(word) & (2**32 - 1)) / 2**32) for word in raw]
    expected = [math.sqrt(-2 * math.log(u)) * math.cos(2 * math.pi * v) for u, v in pairs]
    expected.append(math.sqrt(-2 * math.log(pairs[0][0])) * math.sin(2 * math.pi * pairs[0][1]))
    np.testing.assert_allclose(numbers, expected, rtol=1e-6)
    assert numbers.dtype == np.float32
    assert (normal_noise(5, (3,)) != normal_noise(6, (3,))).all()


def test_a_channel_of_zeros_stays_one():
    padded = NormalizeImage(order="", channel_num=4)(NOISE)
    for transform in EVERY:
        if getattr(transform, "fill_value", 0) is not None:
            changed = transform(padded, SampleRng(0, 1, 5))
            assert changed.shape == padded.shape and (changed[..., 3] == 0).all()


def test_holes_lie_anywhere_and_are_as_many_as_the_yaml_says():
    holes = drawn(Cutout(n_holes=2, length=12))
    assert {len(hole.middles) for hole in holes} == {2}
    rows = [row for hole in holes for row, _ in hole.middles]
    columns = [column for hole in holes for _, column in hole.middles]
    assert set(rows) == set(range(37)) and set(columns) == set(range(53))
    assert abs(np.mean(rows) - 18) < 1 and abs(np.mean(columns) - 26) < 1.5
    assert {colour for hole in holes for colour in hole.colours} == {(0.0, 0.0, 0.0)}


@pytest.mark.parametrize("length", [1, 8, 9, 200])
@pytest.mark.parametrize(("image", "colour"), [(NOISE, (7, 8, 9)), (NORMALIZED, (0.5, 0.0, -0.5))])
def test_holes_are_squares_as_far_as_they_lie_in_the_image(length, image, colour):
    for middle in ((18, 26), (0, 0), (36, 52), (2, 50)):
        expected = image.copy()
        for row in range(middle[0] - length // 2, middle[0] - length // 2 + length):
            for column in range(middle[1] - length // 2, middle[1] - length // 2 + length):
                if 0 <= row < 37 and 0 <= column < 53:
                    expected[row, column] = colour
        cut = Cutout(length=length, fill_value=colour).apply(image, Holes([middle], [colour]))
        np.testing.assert_array_equal(cut, expected)


@pytest.mark.parametrize("fill", [None, "none"])
def test_without_a_colour_each_hole_draws_one(fill):
    holes = drawn(Cutout(n_holes=2, length=8, fill_value=fill))
    values = np.array([colour for hole in holes for colour in hole.colours])
    assert values.min() == 0 and values.max() == 255 and abs(values.mean() - 127.5) < 3
    cut = Cutout(length=8, fill_value=fill).apply(NOISE, Holes([(10, 10)], [(1, 2, 3)]))
    assert (cut[6:14, 6:14] == (1, 2, 3)).all()
    with pytest.raises(ValueError, match="put it before NormalizeImage, or write fill_value"):
        Cutout(fill_value=fill)(NORMALIZED, SampleRng(0, 1, 0))


def test_tiles_have_each_size_as_often_and_half_of_them_are_hidden():
    tiles = drawn(HideAndSeek(), PHOTO, 2000)
    sides = Counter(0 if one is None else one.side for one in tiles)
    assert sides.keys() == {0, 16, 32, 44, 56}
    for count in sides.values():
        assert_count(count, 2000, 0.2)
    for side, shape in ((16, (14, 14)), (32, (7, 7)), (44, (6, 6)), (56, (4, 4))):
        hidden = np.array([one.is_hidden for one in tiles if one and one.side == side])
        assert hidden.shape[1:] == shape
        assert_count(hidden.sum(), hidden.size, 0.5)
        # Each tile by itself: no two of them go together.
        flat = hidden.reshape(len(hidden), -1)
        correlations = np.corrcoef(flat.T) - np.eye(flat.shape[1])
        assert np.abs(correlations).max() < 6 / math.sqrt(len(hidden))


@pytest.mark.parametrize("image", [NOISE, NORMALIZED])
def test_hidden_tiles_are_zero_and_the_others_as_they_were(image):
    is_hidden = np.array([[True, False, True, False], [False, True, True, False], [False, False, False, True]])
    hidden = HideAndSeek().apply(image, HiddenTiles(16, is_hidden))
    for row in range(37):
        for column in range(53):
            expected = 0 if is_hidden[row // 16, column // 16] else image[row, column]
            np.testing.assert_array_equal(hidden[row, column], expected)


def test_bars_are_drawn_within_the_yaml():
    grids = drawn(GridMask(d1=10, d2=14, rotate=5, ratio=0.3, prob=0.6))
    assert_count(sum(grid is not None for grid in grids), 3000, 0.6)
    grids = [grid for grid in grids if grid]
    periods = Counter(grid.period for grid in grids)
    assert periods.keys() == {10, 11, 12, 13}
    for count in periods.values():
        assert_count(count, len(grids), 0.25)
    assert {grid.degrees for grid in grids} == set(range(5))
    assert all(grid.width == int(grid.period * 0.3 + 0.5) for grid in grids)
    for period in periods:
        assert {grid.top for grid in grids if grid.period == period} == set(range(period))
        assert {grid.left for grid in grids if grid.period == period} == set(range(period))
    assert {grid.degrees for grid in drawn(GridMask(), num=100)} == {0}


@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("image", [NOISE, NORMALIZED])
@pytest.mark.parametrize("bars", [Bars(12, 5, 3, 7, 0), Bars(9, 4, 8, 0, 0), Bars(300, 20, 150, 30, 0)])
def test_bars_that_are_not_turned_are_a_grid(mode, image, bars):
    masked = GridMask(mode=mode).apply(image, bars)
    for row in range(37):
        for column in range(53):
            in_bar = any(
                row in range(start, start + bars.width) for start in range(bars.top - bars.period, 37, bars.period)
            )
            in_bar |= any(
                column in range(start, start + bars.width) for start in range(bars.left - bars.period, 53, bars.period)
            )
            np.testing.assert_array_equal(masked[row, column], 0 if in_bar == (mode == 0) else image[row, column])


@pytest.mark.parametrize("degrees", [30, 90, 180])
def test_turned_bars_are_the_turned_grid(degrees):
    image = np.full((101, 151, 3), 255, "uint8")
    bars = Bars(24, 8, 5, 9, degrees)
    masked = GridMask().apply(image, bars)
    # A grid so large that no corner is empty, turned by Pillow about the middle of the image.
    large = GridMask().apply(np.full((301, 351, 3), 255, "uint8"), Bars(24, 8, (5 + 100) % 24, (9 + 100) % 24, 0))
    turned = np.asarray(Image.fromarray(large).rotate(degrees))[100:201, 100:251]
    assert (turned != masked).mean() < (0.002 if degrees % 90 == 0 else 0.05)
    assert masked.mean() == pytest.approx(255 * (1 - 8 / 24) ** 2, rel=0.1)


@pytest.mark.parametrize("transform", EVERY, ids=repr)
@pytest.mark.parametrize("image", [NOISE, NORMALIZED])
def test_draws_repeat_and_apply_needs_no_randomness(transform, image):
    if getattr(transform, "fill_value", 0) is None and image is NORMALIZED:
        return
    before = image.copy()
    for index in range(30):
        first = transform(image, SampleRng(3, 2, index))
        params = transform.draw(SampleRng(3, 2, index), image)
        np.testing.assert_array_equal(first, transform.apply(image, params))
        assert first.dtype == image.dtype and first.shape == image.shape
    np.testing.assert_array_equal(image, before)
    assert transform.is_random


@pytest.mark.parametrize("transform", EVERY, ids=repr)
def test_channels_first_are_refused(transform):
    with pytest.raises(ValueError, match=r"needs images \[H, W, C\], this is \[3, 37, 53\]; put it before ToCHWImage"):
        for index in range(50):
            transform(NOISE.transpose(2, 0, 1), SampleRng(0, 1, index))


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (RandomErasing(EPSILON=1, sh=0.1, mean=(0.5, -1, 0)), "RandomErasing: mean must be within 0..255 on an image"),
        (Cutout(fill_value=(0, 0, 256)), "Cutout: fill_value must be within 0..255 on an image that is not normalized"),
    ],
)
def test_colours_that_no_pixel_has_are_refused(transform, message):
    with pytest.raises(ValueError, match=message):
        transform(NOISE, SampleRng(0, 1, 0))


@pytest.mark.parametrize(
    ("transform", "settings", "message"),
    [
        (RandomErasing, {"EPSILON": 2}, "EPSILON must be within 0..1; got 2"),
        (RandomErasing, {"sl": 0.5, "sh": 0.2}, "sl and sh must be 0 <= sl <= sh <= 1; got sl=0.5 and sh=0.2"),
        (RandomErasing, {"r1": 0}, "r1 must be above 0 and at most 1; got 0"),
        (RandomErasing, {"r1": 3}, "r1 must be above 0 and at most 1; got 3"),
        (RandomErasing, {"mean": (0, 0)}, r"mean must have one number for each of 3 channels; got \[0, 0\]"),
        (RandomErasing, {"attempt": 0}, "attempt must be at least 1; got 0"),
        (RandomErasing, {"mode": "noise"}, "mode must be 'const', 'rand' or 'pixel'; got 'noise'"),
        (Cutout, {"n_holes": 0}, "n_holes must be at least 1; got 0"),
        (Cutout, {"length": 0}, "length must be at least 1; got 0"),
        (Cutout, {"fill_value": (1, 2)}, r"fill_value must be red, green and blue, or null; got \(1, 2\)"),
        (GridMask, {"d1": 20, "d2": 20}, "d1 must be at least 1 and below d2; got d1=20 and d2=20"),
        (GridMask, {"rotate": 0}, "rotate must be within 1..360; got 0"),
        (GridMask, {"mode": 2}, "mode must be 0 or 1; got 2"),
        (GridMask, {"ratio": 1.5}, "ratio must be within 0..1; got 1.5"),
        (GridMask, {"prob": -1}, "prob must be within 0..1; got -1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(transform, settings, message):
    with pytest.raises(ValueError, match=message):
        transform(**settings)
