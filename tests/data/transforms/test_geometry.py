# SPDX-License-Identifier: Apache-2.0
"""Resize, crop and flip: sizes, bounds, what is drawn, and what is refused."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from ppcls.data.transforms import CropImage, RandCropImage, RandFlipImage, RandomInterpolationAugment, ResizeImage
from ppcls.data.transforms.crop import CropParams
from ppcls.data.transforms.geometry import LowResolution

NOISE = np.random.RandomState(7).randint(0, 256, (37, 53, 3)).astype("uint8")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


@pytest.mark.parametrize("backend", ["cv2", "pil"])
@pytest.mark.parametrize(
    ("shape", "short", "expected"),
    [((37, 53), 32, (32, 46)), ((53, 37), 32, (46, 32)), ((40, 40), 32, (32, 32)), ((300, 200), 256, (384, 256))],
)
def test_resize_short_keeps_the_proportions(backend, shape, short, expected):
    image = np.zeros((*shape, 3), np.uint8)
    assert ResizeImage(resize_short=short, backend=backend)(image).shape == (*expected, 3)


def test_half_a_pixel_rounds_to_even():
    # 4 * 5 / 8 = 2.5 and 4 * 7 / 8 = 3.5: Python's round, as PaddleClas has it.
    assert ResizeImage(resize_short=4)(np.zeros((8, 9, 3), np.uint8)).shape == (4, 4, 3)
    assert ResizeImage(resize_short=4)(np.zeros((8, 11, 3), np.uint8)).shape == (4, 6, 3)


@pytest.mark.parametrize("backend", ["cv2", "pil"])
def test_a_list_of_sizes_is_width_then_height(backend):
    assert ResizeImage(size=[40, 24], backend=backend)(NOISE).shape == (24, 40, 3)
    assert CropImage([24, 36])(NOISE).shape == (36, 24, 3)
    assert RandCropImage([40, 24], backend=backend)(NOISE, rng()).shape == (24, 40, 3)


def test_nearest_doubling_repeats_every_pixel():
    for backend in ("cv2", "pil"):
        doubled = ResizeImage(size=[106, 74], interpolation="nearest", backend=backend)(NOISE)
        np.testing.assert_array_equal(doubled, NOISE.repeat(2, axis=0).repeat(2, axis=1))


def test_area_halving_is_the_mean_of_four():
    image = NOISE[:36, :52].astype("float64")
    mean = image.reshape(18, 2, 26, 2, 3).mean(axis=(1, 3))
    halved = ResizeImage(size=[26, 18], interpolation="area")(NOISE[:36, :52])
    assert np.abs(halved - mean).max() <= 0.5


def test_random_interpolation_is_drawn_and_repeatable():
    resize = ResizeImage(size=32, interpolation="random")
    assert resize.is_random and not ResizeImage(size=32).is_random
    drawn = [resize.draw(rng(seed), NOISE) for seed in range(40)]
    assert set(drawn) == {"bilinear", "bicubic"}
    np.testing.assert_array_equal(resize.apply(NOISE, "bicubic"), ResizeImage(size=32, interpolation="bicubic")(NOISE))


def test_the_middle_is_cut_out():
    np.testing.assert_array_equal(CropImage(31)(NOISE), NOISE[3:34, 11:42])
    np.testing.assert_array_equal(CropImage([53, 37])(NOISE), NOISE)


def test_a_crop_beyond_the_image_names_both_sizes():
    with pytest.raises(ValueError, match=r"cut 24 x 40 \(width x height\) out of an image of 53 x 37"):
        CropImage([24, 40])(NOISE)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ResizeImage(), "give one of size and resize_short; got size=None and resize_short=None"),
        (lambda: ResizeImage(size=16, resize_short=32), "give one of size and resize_short"),
        (lambda: ResizeImage(resize_short=0), "resize_short must be at least 1; got 0"),
        (lambda: ResizeImage(size=[1, 2, 3]), r"size must be one length or \[width, height\]"),
        (lambda: ResizeImage(size=8, interpolation="box"), "backend cv2 interpolates by nearest, .*got 'box'"),
        (lambda: ResizeImage(size=8, backend="pil", interpolation="area"), "backend pil interpolates by .*'area'"),
        (lambda: ResizeImage(size=8, backend="dali"), "backend must be one of cv2, pil; got 'dali'"),
        (lambda: CropImage(0), "each at least 1; got 0"),
        (lambda: RandCropImage(32, scale=[0.5, 0.1]), "smallest <= largest <= 1"),
        (lambda: RandCropImage(32, scale=[0.0, 1.0]), "0 < smallest"),
        (lambda: RandCropImage(32, scale=[0.5, 1.5]), "largest <= 1"),
        (lambda: RandCropImage(32, ratio=[2.0, 1.0]), "ratio must be"),
        (lambda: RandCropImage(32, ratio=[-1.0, 1.0]), "ratio must be"),
        (lambda: RandCropImage(32, progress_size=[32]), "progress_size is not supported"),
        (lambda: RandFlipImage(2), "flip_code must be -1, 0 or 1; got 2"),
        (lambda: RandomInterpolationAugment(1.5), "prob must be within 0..1; got 1.5"),
    ],
)
def test_a_bad_setting_is_refused_with_what_is_allowed(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("shape", [(37, 53), (64, 48), (1, 1), (1, 200), (200, 1), (3, 1000)])
@pytest.mark.parametrize("use_log_aspect", [False, True])
def test_a_drawn_area_lies_inside_the_image(shape, use_log_aspect):
    crop = RandCropImage(8, use_log_aspect=use_log_aspect)
    image = np.zeros((*shape, 3), np.uint8)
    generator = rng()
    for _ in range(300):
        params = crop.draw(generator, image)
        assert params.top >= 0 and params.top + params.height <= shape[0] and params.height >= 1
        assert params.left >= 0 and params.left + params.width <= shape[1] and params.width >= 1
    assert crop.apply(image, params).shape == (8, 8, 3)


@pytest.mark.parametrize("use_log_aspect", [False, True])
def test_drawn_areas_and_ratios_follow_their_distributions(use_log_aspect):
    # On a large square image every area up to 1/2 fits every ratio within 1/2..2, so nothing is bounded.
    crop = RandCropImage(8, scale=[0.1, 0.5], ratio=[0.5, 2.0], use_log_aspect=use_log_aspect)
    image = np.broadcast_to(np.uint8(0), (4000, 4000, 3))
    generator = rng(3)
    drawn = [crop.draw(generator, image) for _ in range(4000)]
    area = np.array([params.width * params.height for params in drawn]) / 4000**2
    ratio = np.array([params.width / params.height for params in drawn])
    value = np.log(ratio) if use_log_aspect else ratio
    low, high = (-math.log(2), math.log(2)) if use_log_aspect else (0.5, 2.0)
    for sample, (start, end) in ((area, (0.1, 0.5)), (value, (low, high))):
        # Quantiles of a uniform distribution; 0.03 of its range is 4 standard errors of the median.
        quantiles = np.quantile(sample, [0.1, 0.25, 0.5, 0.75, 0.9])
        expected = start + (end - start) * np.array([0.1, 0.25, 0.5, 0.75, 0.9])
        np.testing.assert_allclose(quantiles, expected, atol=0.032 * (end - start))
    room = np.array([4000 - params.left - params.width for params in drawn])
    place = np.array([params.left for params in drawn]) / (room + np.array([params.left for params in drawn]))
    assert abs(place.mean() - 0.5) < 0.02


def test_an_area_that_does_not_fit_its_ratio_is_made_smaller():
    # On 100 x 400 a square has at most a quarter of the area, so each draw gives exactly that.
    crop = RandCropImage(8, scale=[0.5, 1.0], ratio=[1.0, 1.0])
    for seed in range(20):
        params = crop.draw(rng(seed), np.zeros((100, 400, 3), np.uint8))
        assert (params.height, params.width, params.top) == (100, 100, 0)


def test_apply_is_deterministic_and_leaves_the_image_alone():
    before = NOISE.copy()
    params = CropParams(3, 5, 20, 30, None)
    crop = RandCropImage([30, 20])
    np.testing.assert_array_equal(crop.apply(NOISE, params), NOISE[3:23, 5:35])
    np.testing.assert_array_equal(crop.apply(NOISE, params), crop.apply(NOISE, params))
    flip = RandFlipImage()
    np.testing.assert_array_equal(flip.apply(NOISE, True), flip.apply(NOISE, True))
    np.testing.assert_array_equal(NOISE, before)


def test_the_same_generator_state_gives_the_same_image():
    crop = RandCropImage(24, interpolation="random")
    np.testing.assert_array_equal(crop(NOISE, rng(5)), crop(NOISE, rng(5)))
    assert any((crop(NOISE, rng(5)) != crop(NOISE, rng(seed))).any() for seed in range(6, 9))


@pytest.mark.parametrize(
    ("code", "mirrored"), [(1, NOISE[:, ::-1]), (0, NOISE[::-1]), (-1, NOISE[::-1, ::-1])], ids=["1", "0", "-1"]
)
def test_flip_codes_mirror_their_axes(code, mirrored):
    flip = RandFlipImage(code)
    np.testing.assert_array_equal(flip.apply(NOISE, True), mirrored)
    np.testing.assert_array_equal(flip.apply(NOISE, False), NOISE)


def test_one_half_is_flipped():
    flip = RandFlipImage()
    generator = rng()
    count = sum(flip.draw(generator, NOISE) for _ in range(4000))
    assert abs(count - 2000) < 4 * math.sqrt(1000)


def test_a_random_operation_without_a_generator_is_refused():
    with pytest.raises(ValueError, match="RandFlipImage draws at random"):
        RandFlipImage()(NOISE)


def test_repr_shows_the_settings():
    assert repr(RandFlipImage(0)) == "RandFlipImage(flip_code=0)"
    assert repr(CropImage([24, 36])) == "CropImage(size=[24, 36])"


def test_low_resolution_is_a_shrink_and_an_enlargement():
    lower = RandomInterpolationAugment(0.5)
    small = cv2.resize(NOISE, (12, 12), interpolation=cv2.INTER_AREA)
    expected = cv2.resize(small, (53, 37), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(lower.apply(NOISE, LowResolution(12, "area", "nearest")), expected)
    assert lower.apply(NOISE, None) is NOISE


def test_low_resolutions_are_drawn_evenly():
    lower = RandomInterpolationAugment(0.4)
    generator = rng()
    image = np.broadcast_to(np.uint8(0), (1000, 500, 3))
    drawn = [params for params in (lower.draw(generator, image) for _ in range(5000)) if params is not None]
    assert abs(len(drawn) - 2000) < 4 * math.sqrt(5000 * 0.4 * 0.6)
    sides = np.array([params.side for params in drawn])
    assert 200 <= sides.min() < 210 and 990 < sides.max() <= 1000
    assert abs(sides.mean() - 600) < 4 * 800 / math.sqrt(12 * len(sides))
    for names in ([params.shrink_by for params in drawn], [params.enlarge_by for params in drawn]):
        counts = [names.count(name) for name in ("nearest", "bilinear", "area", "bicubic", "lanczos")]
        assert sum(counts) == len(names) and max(abs(count - len(names) / 5) for count in counts) < 80


def test_an_image_of_few_pixels_has_a_low_resolution_too():
    lower = RandomInterpolationAugment(1.0)
    for seed in range(10):
        assert lower(NOISE[:2, :3], rng(seed)).shape == (2, 3, 3)
