# SPDX-License-Identifier: Apache-2.0
"""Padding against numpy's, and loops."""

from __future__ import annotations

import numpy as np
import pytest

from ppcls.data.transforms import Pad_paddle_vision, Padv2

NOISE = np.random.RandomState(7).randint(0, 256, (13, 9, 3)).astype("uint8")


def placed(image, height, width, top, left, fill):
    """The image in a larger one, pixel by pixel."""
    canvas = np.zeros((height, width, 3), np.uint8)
    for row in range(height):
        for column in range(width):
            inside = top <= row < top + image.shape[0] and left <= column < left + image.shape[1]
            canvas[row, column] = image[row - top, column - left] if inside else fill
    return canvas


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"size": 20}, (20, 20, 0, 0)),
        ({"size": [16, 20], "pad_mode": 1}, (20, 16, 3, 3)),
        ({"size": [16, 20], "pad_mode": 2}, (20, 16, 7, 7)),
        ({"size": [16, 20], "pad_mode": -1, "offsets": [2, 5]}, (20, 16, 5, 2)),
        ({"size": [9, 20]}, (20, 9, 0, 0)),
        ({"size_divisor": 8}, (16, 16, 0, 0)),
        ({"size_divisor": 13, "pad_mode": 1}, (13, 13, 0, 2)),
    ],
)
def test_the_image_lies_where_the_mode_says(settings, expected):
    padded = Padv2(**settings, fill_value=(1, 2, 3))(NOISE)
    np.testing.assert_array_equal(padded, placed(NOISE, *expected, (1, 2, 3)))


def test_the_default_fill_is_rounded_and_one_level_is_for_all_channels():
    assert (Padv2(20)(NOISE)[13:] == 128).all()
    assert (Padv2(20, fill_value=7)(NOISE)[13:] == 7).all()


def test_an_image_of_the_size_passes_as_it_is():
    assert Padv2([9, 13])(NOISE) is NOISE
    assert Padv2(size_divisor=1)(NOISE) is NOISE


@pytest.mark.parametrize("settings", [{"size": 12}, {"size": [20, 14], "pad_mode": -1, "offsets": [0, 2]}])
def test_an_image_that_does_not_fit_names_both_sizes(settings):
    with pytest.raises(ValueError, match=r"makes images \d+ x \d+ \(width x height\), and one of 9 x 13 does not fit"):
        Padv2(**settings)(NOISE)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
@pytest.mark.parametrize("padding", [0, 3, [2, 5], [1, 2, 3, 4], [0, 30, 0, 0]])
def test_borders_are_those_of_numpy(mode, padding):
    left, top, right, bottom = {
        int: lambda: [padding] * 4,
        list: lambda: padding if len(padding) == 4 else padding * 2,
    }[type(padding)]()
    options = {"constant_values": 77} if mode == "constant" else {}
    expected = np.pad(NOISE, ((top, bottom), (left, right), (0, 0)), mode, **options)
    np.testing.assert_array_equal(Pad_paddle_vision(padding, 77, mode)(NOISE), expected)


def test_a_border_may_have_a_colour():
    padded = Pad_paddle_vision([1, 0, 0, 0], (10, 20, 30))(NOISE)
    np.testing.assert_array_equal(padded, placed(NOISE, 13, 10, 0, 1, (10, 20, 30)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Padv2(0), "each at least 1; got 0"),
        (lambda: Padv2(size_divisor=0), "size_divisor must be at least 1"),
        (lambda: Padv2(8, pad_mode=3), "pad_mode must be -1, 0, 1 or 2; got 3"),
        (lambda: Padv2(8, pad_mode=-1), "offsets go with pad_mode -1; got pad_mode -1 and offsets None"),
        (lambda: Padv2(8, offsets=(1, 1)), "offsets go with pad_mode -1; got pad_mode 0"),
        (lambda: Padv2(8, pad_mode=-1, offsets=(1, -1)), r"offsets must be \[x, y\]"),
        (lambda: Padv2(8, fill_value=(0, 0)), "fill_value must be one level or"),
        (lambda: Padv2(8, fill_value=256), "within 0..255; got 256"),
        (lambda: Pad_paddle_vision([1, 2, 3]), "padding must be one width"),
        (lambda: Pad_paddle_vision([1, -2]), "each at least 0"),
        (lambda: Pad_paddle_vision(-1), "each at least 0"),
        (lambda: Pad_paddle_vision(1, padding_mode="wrap"), "padding_mode must be one of constant"),
        (lambda: Pad_paddle_vision(1, keys=["image"]), "keys is for inputs of several images"),
    ],
)
def test_a_bad_setting_is_refused_with_what_is_allowed(build, message):
    with pytest.raises(ValueError, match=message):
        build()
