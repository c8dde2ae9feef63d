# SPDX-License-Identifier: Apache-2.0
"""Turned images, against Pillow's and against exact turns."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from PIL import Image

from ppcls.data.rng import SampleRng
from ppcls.data.transforms import RandomRot90, RandomRotation

NOISE = np.random.RandomState(7).randint(0, 256, (37, 53, 3)).astype("uint8")
SQUARE = NOISE[:, :37]
ROWS, COLUMNS, CHANNELS = np.ogrid[:61, :80, :3]
SMOOTH = np.rint(127.5 + 127.5 * np.sin(ROWS / 11 + CHANNELS) * np.cos(COLUMNS / 17 - CHANNELS)).astype("uint8")


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_quarters_are_exact(quarters, interpolation):
    expected = np.rot90(NOISE, quarters)
    np.testing.assert_array_equal(RandomRot90().apply(NOISE, quarters), expected)
    turn = RandomRotation(180, interpolation=interpolation, expand=True)
    np.testing.assert_array_equal(turn.apply(NOISE, 90.0 * quarters), expected)
    turn = RandomRotation(180, interpolation=interpolation)
    np.testing.assert_array_equal(turn.apply(SQUARE, 90.0 * quarters), np.rot90(SQUARE, quarters))


@pytest.mark.parametrize("degrees", [-150.0, -33.3, 20.0, 45.0, 120.0])
@pytest.mark.parametrize("settings", [{}, {"expand": True}, {"center": (20.0, 50.0)}], ids=str)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_any_angle_is_that_of_pillow(degrees, settings, interpolation):
    turned = RandomRotation(180, interpolation=interpolation, fill=(9, 99, 199), **settings).apply(SMOOTH, degrees)
    method = getattr(Image.Resampling, interpolation.upper())
    expected = Image.fromarray(SMOOTH).rotate(degrees, method, fillcolor=(9, 99, 199), **settings)
    expected = np.asarray(expected)
    assert turned.shape == expected.shape
    # Right at the image's edges one blends with the fill and the other does not.
    outside = Image.new("L", (80, 61)).rotate(degrees, fillcolor=255, **settings)
    near = cv2.dilate(np.pad(np.asarray(outside), 1, constant_values=255), np.ones((7, 7), np.uint8))[1:-1, 1:-1]
    for part, largest in ((near == 0, 3), (cv2.erode(np.asarray(outside), np.ones((7, 7), np.uint8)) > 0, 0)):
        assert part.sum() > 100
        assert np.abs(turned[part].astype(int) - expected[part]).max() <= largest


def test_nearest_takes_pixels_as_they_are():
    turned = RandomRotation(180, fill=(9, 99, 199)).apply(NOISE, 30.0)
    known = {tuple(pixel) for pixel in NOISE.reshape(-1, 3).tolist()} | {(9, 99, 199)}
    assert {tuple(pixel) for pixel in turned.reshape(-1, 3).tolist()} <= known
    assert tuple(turned[0, 0]) == (9, 99, 199) and turned.shape == NOISE.shape


@pytest.mark.parametrize(("degrees", "ends"), [(30, (-30, 30)), ((10.0, 40.0), (10, 40))])
def test_angles_and_the_share_of_turned_images(degrees, ends):
    turn = RandomRotation(degrees, prob=0.4)
    drawn = [turn.draw(SampleRng(0, 1, index), NOISE) for index in range(4000)]
    angles = [angle for angle in drawn if angle is not None]
    assert abs(len(angles) - 1600) < 4 * math.sqrt(4000 * 0.4 * 0.6)
    span = ends[1] - ends[0]
    assert ends[0] <= min(angles) < ends[0] + 0.02 * span and ends[1] - 0.02 * span < max(angles) <= ends[1]
    assert abs(np.mean(angles) - sum(ends) / 2) < 4 * span / math.sqrt(12 * len(angles))
    assert turn.apply(NOISE, None) is NOISE


def test_each_number_of_quarters_is_as_likely():
    counts = np.bincount([RandomRot90().draw(SampleRng(0, 1, index), NOISE) for index in range(4000)])
    assert len(counts) == 4 and np.abs(counts - 1000).max() < 4 * math.sqrt(4000 * 0.25 * 0.75)


def test_turning_is_deterministic_and_leaves_the_image_alone():
    before = NOISE.copy()
    turn = RandomRotation(90, interpolation="bilinear", expand=True)
    np.testing.assert_array_equal(turn.apply(NOISE, 12.5), turn.apply(NOISE, 12.5))
    np.testing.assert_array_equal(NOISE, before)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RandomRotation(-5), r"degrees must be one angle of at least 0, or \[smallest, largest\]; got -5"),
        (lambda: RandomRotation((5, -5)), "degrees must be"),
        (lambda: RandomRotation(5, prob=1.5), "prob must be within 0..1"),
        (lambda: RandomRotation(5, interpolation="area"), "interpolation must be nearest, bilinear or bicubic"),
        (
            lambda: RandomRotation(5, expand=True, center=(1, 1)),
            r"center must be \[x, y\], and is for images",
        ),
        (lambda: RandomRotation(5, fill=(0, 0)), "fill must be one level or"),
    ],
)
def test_a_bad_setting_is_refused_with_what_is_allowed(build, message):
    with pytest.raises(ValueError, match=message):
        build()
