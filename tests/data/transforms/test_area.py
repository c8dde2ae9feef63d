# SPDX-License-Identifier: Apache-2.0
"""Random areas: inside the image, distributed as asked for, and what becomes of them."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from ppcls.data.draft import DraftCrop
from ppcls.data.rng import SampleRng
from ppcls.data.transforms import CropWithPadding, RandomResizedCrop
from ppcls.data.transforms.crop import CropParams

NOISE = np.random.RandomState(7).randint(0, 256, (37, 53, 3)).astype("uint8")
LARGE = np.broadcast_to(np.uint8(0), (4000, 4000, 3))


def drawn(transform, image, num):
    return [transform.draw(SampleRng(0, 1, index), image) for index in range(num)]


@pytest.mark.parametrize("shape", [(37, 53), (64, 48), (1, 1), (1, 200), (200, 1), (3, 1000), (1000, 3)])
@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (5.0, 6.0)])
def test_a_drawn_area_lies_inside_the_image(shape, ratio):
    crop = RandomResizedCrop(8, ratio=ratio)
    image = np.zeros((*shape, 3), np.uint8)
    for params in drawn(crop, image, 200):
        assert params.top >= 0 and params.top + params.height <= shape[0] and params.height >= 1
        assert params.left >= 0 and params.left + params.width <= shape[1] and params.width >= 1
        assert crop.apply(image, params).shape == (8, 8, 3)


def test_areas_ratios_and_places_follow_their_distributions():
    # On a large square image every area up to 1/2 fits every ratio within 1/2..2, so nothing is drawn again.
    areas = drawn(RandomResizedCrop(8, scale=(0.1, 0.5), ratio=(0.5, 2.0)), LARGE, 4000)
    area = np.array([params.width * params.height for params in areas]) / 4000**2
    ratio = np.log([params.width / params.height for params in areas])
    column = np.array([params.left / (4000 - params.width) for params in areas])
    row = np.array([params.top / (4000 - params.height) for params in areas])
    limits = ((area, (0.1, 0.5)), (ratio, (-math.log(2), math.log(2))), (column, (0, 1)), (row, (0, 1)))
    for sample, (start, end) in limits:
        # Quantiles of a uniform distribution; 0.032 of its range is 4 standard errors of the median.
        shares = np.array([0.1, 0.25, 0.5, 0.75, 0.9])
        expected = start + (end - start) * shares
        np.testing.assert_allclose(np.quantile(sample, shares), expected, atol=0.032 * (end - start))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((100, 900), (0, 383, 100, 133)), ((900, 100), (383, 0, 133, 100))],
    ids=["too wide", "too tall"],
)
def test_the_middle_is_taken_where_nothing_fits(shape, expected):
    # All of the image's area in proportions of at most 4/3 is higher or wider than the image.
    crop = RandomResizedCrop(8, scale=(1.0, 1.0))
    for params in drawn(crop, np.broadcast_to(np.uint8(0), (*shape, 3)), 20):
        assert params == CropParams(*expected, "bilinear")


@pytest.mark.parametrize("backend", ["cv2", "pil"])
def test_the_area_is_scaled_to_height_and_width(backend):
    crop = RandomResizedCrop([20, 30], backend=backend)
    np.testing.assert_array_equal(crop.apply(NOISE, CropParams(3, 5, 20, 30, "bilinear")), NOISE[3:23, 5:35])
    assert crop(NOISE, SampleRng(0, 1, 0)).shape == (20, 30, 3)


def test_interpolation_is_obeyed():
    crop = RandomResizedCrop(16, interpolation="nearest")
    params = crop.draw(SampleRng(0, 1, 0), NOISE)
    area = NOISE[params.top : params.top + params.height, params.left : params.left + params.width]
    np.testing.assert_array_equal(
        crop.apply(NOISE, params), cv2.resize(area, (16, 16), interpolation=cv2.INTER_NEAREST)
    )


def test_the_area_may_be_cut_out_of_a_smaller_decoding():
    # 400 x 300 at half its size: all of it, scaled to 100 x 75, is the same picture but for rounding.
    rows, columns, channels = np.ogrid[:300, :400, :3]
    smooth = np.rint(127.5 + 127.5 * np.sin(rows / 40 + channels) * np.cos(columns / 50)).astype("uint8")
    half = cv2.resize(smooth, (200, 150), interpolation=cv2.INTER_AREA)
    crop = RandomResizedCrop([75, 100])
    assert isinstance(crop, DraftCrop)
    whole = CropParams(0, 0, 300, 400, "bilinear")
    assert crop.reduction(whole) == 4
    difference = crop.apply(half, crop.scaled(whole, 0.5, 0.5)).astype(int) - crop.apply(smooth, whole)
    assert np.abs(difference).max() <= 2


def test_outside_the_area_is_filled():
    crop = CropWithPadding(padding_num=9)
    before = NOISE.copy()
    filled = crop.apply(NOISE, (3, 5, 20, 30))
    expected = np.full_like(NOISE, 9)
    for row in range(3, 23):
        for column in range(5, 35):
            expected[row, column] = NOISE[row, column]
    np.testing.assert_array_equal(filled, expected)
    np.testing.assert_array_equal(NOISE, before)
    assert filled.dtype == np.uint8


def test_the_share_of_filled_images_is_prob():
    count = sum(area is not None for area in drawn(CropWithPadding(prob=0.3), NOISE, 2000))
    assert abs(count - 600) < 4 * math.sqrt(2000 * 0.3 * 0.7)
    assert CropWithPadding(prob=0.0)(NOISE, SampleRng(0, 1, 0)) is NOISE


def test_the_kept_areas_are_those_of_the_scaling_crop():
    # prob takes the first number.
    rng = SampleRng(0, 1, 5)
    rng.random()
    *area, _ = RandomResizedCrop(8, scale=(0.3, 0.6)).draw(rng, NOISE)
    assert CropWithPadding(scale=(0.3, 0.6)).draw(SampleRng(0, 1, 5), NOISE) == tuple(area)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RandomResizedCrop(0), r"size must be one length or \[height, width\], each at least 1"),
        (lambda: RandomResizedCrop(8, scale=(0.5, 0.1)), "smallest <= largest <= 1"),
        (lambda: RandomResizedCrop(8, scale=(0.0, 1.0)), "0 < smallest"),
        (lambda: RandomResizedCrop(8, ratio=(2.0, 1.0)), "ratio must be"),
        (lambda: RandomResizedCrop(8, interpolation="random"), "got 'random'"),
        (lambda: RandomResizedCrop(8, keys=["image"]), "keys is for inputs of several images"),
        (lambda: CropWithPadding(prob=2), "prob must be within 0..1"),
        (lambda: CropWithPadding(padding_num=256), "padding_num must be within 0..255; got 256"),
        (lambda: CropWithPadding(scale=(0.5, 1.5)), "scale must be"),
        (lambda: CropWithPadding(key="image"), "keys is for inputs of several images"),
    ],
)
def test_a_bad_setting_is_refused_with_what_is_allowed(build, message):
    with pytest.raises(ValueError, match=message):
        build()
