# SPDX-License-Identifier: Apache-2.0
"""Normalization against its formula in float64."""

from __future__ import annotations

import numpy as np
import pytest

from ppcls.data.transforms import NormalizeImage, ToCHWImage

NOISE = np.random.RandomState(7).randint(0, 256, (37, 53, 3)).astype("uint8")
MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])


@pytest.mark.parametrize("order", ["", "hwc"])
def test_the_formula_with_channels_last(order):
    expected = (NOISE / 255.0 - MEAN) / STD
    normalized = NormalizeImage(order=order)(NOISE)
    assert normalized.dtype == np.float32
    np.testing.assert_allclose(normalized, expected, rtol=1e-5, atol=1e-6)


def test_the_formula_with_channels_first():
    expected = ((NOISE * 0.5 - 3.0) / np.array([1.0, 2.0, 4.0])).transpose(2, 0, 1)
    transform = NormalizeImage(scale=0.5, mean=[3, 3, 3], std=[1, 2, 4], order="chw")
    np.testing.assert_allclose(transform(ToCHWImage()(NOISE)), expected, rtol=1e-6)


@pytest.mark.parametrize(("order", "axis"), [("chw", 0), ("hwc", 2)])
def test_a_fourth_channel_is_zero(order, axis):
    image = NOISE.transpose(2, 0, 1) if order == "chw" else NOISE
    four = NormalizeImage(order=order, channel_num=4)(image)
    assert four.shape[axis] == 4 and four.dtype == np.float32
    assert not four.take(3, axis).any()
    np.testing.assert_array_equal(four.take([0, 1, 2], axis), NormalizeImage(order=order)(image))


def test_half_precision_is_rounded_from_single():
    half = NormalizeImage(order="hwc", output_fp16=True)(NOISE)
    np.testing.assert_array_equal(half, NormalizeImage(order="hwc")(NOISE).astype(np.float16))


@pytest.mark.parametrize(("order", "image"), [("chw", NOISE), ("", NOISE.transpose(2, 0, 1)), ("hwc", NOISE[:, :, 0])])
def test_an_image_of_another_layout_is_refused(order, image):
    with pytest.raises(ValueError, match="needs 3 channels on axis"):
        NormalizeImage(order=order)(image)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"mean": [0.5]}, r"mean must have one number for each of 3 channels; got \[0.5\]"),
        ({"std": [1, 0, 1]}, r"std must not contain zero; got \[1, 0, 1\]"),
        ({"order": "nhwc"}, "order must be 'chw', 'hwc' or ''; got 'nhwc'"),
        ({"channel_num": 1}, "channel_num must be 3 or 4; got 1"),
    ],
)
def test_a_bad_setting_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        NormalizeImage(**params)
