# SPDX-License-Identifier: Apache-2.0
"""The operations of paddle.vision, against paddle.vision's own functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from paddle.vision.transforms import functional as reference
from PIL import Image

from ppcls.data.rng import BatchRng, SampleRng
from ppcls.data.transforms import CenterCrop, RandomHorizontalFlip, Resize

NOISE = np.random.RandomState(7).randint(0, 256, (37, 53, 3)).astype("uint8")
TALL = np.ascontiguousarray(NOISE.transpose(1, 0, 2))


@pytest.mark.parametrize("image", [NOISE, TALL, NOISE[:, :37]], ids=["wide", "tall", "square"])
@pytest.mark.parametrize("size", [32, 37, 80, [24, 36]])
def test_resize_is_that_of_paddle_vision(image, size):
    for interpolation in ("nearest", "bilinear", "bicubic", "area", "lanczos"):
        expected = reference.resize(image, size, interpolation)
        np.testing.assert_array_equal(Resize(size, interpolation)(image), expected)
    for interpolation in ("bilinear", "box", "hamming"):
        expected = np.asarray(reference.resize(Image.fromarray(image), size, interpolation))
        np.testing.assert_array_equal(Resize(size, interpolation, backend="pil")(image), expected)


def test_the_longer_side_is_rounded_down():
    # 32 * 53 / 37 = 45.8, which ResizeImage would round up.
    assert Resize(32)(NOISE).shape == (32, 45, 3)
    assert Resize(32)(TALL).shape == (45, 32, 3)


@pytest.mark.parametrize("size", [37, 36, 20, [24, 36], [37, 53]])
def test_the_middle_is_that_of_paddle_vision(size):
    np.testing.assert_array_equal(CenterCrop(size)(NOISE), reference.center_crop(NOISE, size))


def test_a_crop_beyond_the_image_names_both_sizes():
    with pytest.raises(ValueError, match=r"cut 40 x 24 \(height x width\) out of an image of 37 x 53"):
        CenterCrop([40, 24])(NOISE)


@pytest.mark.parametrize("prob", [0.0, 0.2, 1.0])
def test_the_share_of_mirrored_images_is_prob(prob):
    flip = RandomHorizontalFlip(prob)
    count = sum(flip.draw(SampleRng(0, 1, index), NOISE) for index in range(4000))
    assert abs(count - 4000 * prob) <= 4 * math.sqrt(4000 * prob * (1 - prob))
    np.testing.assert_array_equal(flip.apply(NOISE, True), NOISE[:, ::-1])
    np.testing.assert_array_equal(flip.apply(NOISE, False), NOISE)


def test_many_images_are_mirrored_as_each_of_them_is():
    flip = RandomHorizontalFlip(0.3)
    images = np.random.RandomState(0).randint(0, 256, (20, 5, 4, 3)).astype("uint8")
    expected = [flip(images[index], SampleRng(3, 2, index)) for index in range(20)]
    params = flip.draw_many(BatchRng(3, 2, np.arange(20)), images[0])
    np.testing.assert_array_equal(flip.apply_many(images.copy(), params), expected)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Resize(0), r"size must be one length or \[height, width\], each at least 1; got 0"),
        (lambda: Resize([8, 8, 8]), r"size must be one length or \[height, width\]"),
        (lambda: Resize(8, "box"), "backend cv2 interpolates by .*lanczos; got 'box'"),
        (lambda: Resize(8, "random"), "got 'random'"),
        (lambda: Resize(8, keys=["image"]), "keys is for inputs of several images"),
        (lambda: CenterCrop([8, 0]), "each at least 1"),
        (lambda: CenterCrop(8, keys=["image"]), "keys is for inputs of several images"),
        (lambda: RandomHorizontalFlip(1.5), "prob must be within 0..1; got 1.5"),
    ],
)
def test_a_bad_setting_is_refused_with_what_is_allowed(build, message):
    with pytest.raises(ValueError, match=message):
        build()
