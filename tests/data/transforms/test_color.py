# SPDX-License-Identifier: Apache-2.0
import colorsys
import math
import platform

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from ppcls.data.rng import SampleRng
from ppcls.data.transforms import ColorJitter, PCALighting, RandomGrayscale
from ppcls.data.transforms.functional import change_brightness, change_contrast, change_saturation, grey, turn_hue

# Pillow's compiler joins a multiplication and an addition on other machines, which rounds once less.
ROUNDING = 0 if platform.machine() in ("x86_64", "AMD64") else 1


@pytest.fixture
def image():
    return np.random.RandomState(0).randint(0, 256, (16, 24, 3)).astype(np.uint8)


def grey_of(image):
    """Rec. 601 luma, the definition that all three operations share."""
    return image.astype(np.float64) @ [0.299, 0.587, 0.114]


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4])
def test_brightness_contrast_and_saturation_against_their_formulas(image, factor):
    black = np.zeros(image.shape)
    mean = np.full(image.shape, round(grey_of(image).mean()))
    grey = np.repeat(grey_of(image)[:, :, None], 3, axis=2)
    for change, base in ((change_brightness, black), (change_contrast, mean), (change_saturation, grey)):
        expected = np.clip(base + factor * (image - base), 0, 255)
        assert np.abs(change(image, factor) - expected).max() <= 1.5  # both the grey and the result are rounded


@pytest.mark.parametrize("start", range(0, 256, 32))
def test_all_colours_change_as_with_pillow(start):
    colours = np.empty((32 * 256, 256, 3), np.uint8)
    colours[:, :, 0] = np.arange(start, start + 32).repeat(256)[:, None]
    colours[:, :, 1] = np.tile(np.arange(256), 32)[:, None]
    colours[:, :, 2] = np.arange(256)
    pillow = Image.fromarray(colours)
    np.testing.assert_array_equal(grey(colours), np.asarray(pillow.convert("L")))
    changes = ((change_brightness, "Brightness"), (change_contrast, "Contrast"), (change_saturation, "Color"))
    for change, name in changes:
        for factor in (0.61803, 1.4142136):
            changed = change(colours, factor).astype(np.int16)
            assert np.abs(changed - np.asarray(getattr(ImageEnhance, name)(pillow).enhance(factor))).max() <= ROUNDING


@pytest.mark.parametrize("size", [1, 3, 32, 99])
def test_images_of_any_size_change_as_with_pillow_by_any_factor(size):
    images = np.random.RandomState(size).randint(0, 256, (12, size, size + 1, 3)).astype(np.uint8)
    for image, factor in zip(images, (0, 0.1, 0.3, 0.55, 0.7, 0.99, 1, 1.01, 1.3, 1.9, 2.5, 10)):
        pillow = Image.fromarray(image)
        for change, name in (
            (change_brightness, "Brightness"),
            (change_contrast, "Contrast"),
            (change_saturation, "Color"),
        ):
            expected = np.asarray(getattr(ImageEnhance, name)(pillow).enhance(factor))
            assert np.abs(change(image, factor).astype(np.int16) - expected).max() <= ROUNDING


def test_views_change_as_their_copies_do(image):
    for view in (image[3:9, 2:17], image[:, ::-1], image[:, :, ::-1], image.transpose(1, 0, 2)):
        for change in (change_brightness, change_contrast, change_saturation, turn_hue):
            np.testing.assert_array_equal(change(view, 0.4), change(view.copy(), 0.4))


@pytest.mark.parametrize("turn", [0.25, -0.25, 0.5])
def test_hue_turns_the_colour_circle(turn):
    for red, green, blue in ((200, 40, 40), (40, 180, 90)):
        hue, saturation, value = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
        expected = 255 * np.array(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value))
        actual = turn_hue(np.full((2, 2, 3), (red, green, blue), np.uint8), turn)[0, 0]
        assert np.abs(actual - expected).max() < 8  # steps of 1/256, counted in 255ths


def test_neutral_factors_change_nothing(image):
    for change in (change_brightness, change_contrast, change_saturation):
        np.testing.assert_array_equal(change(image, 1.0), image)


def test_factors_stay_in_range_and_the_order_varies(image):
    jitter = ColorJitter(brightness=0.4, contrast=[0.9, 1.2], saturation=2.0)
    rng = np.random.default_rng(0)
    drawn = [jitter.draw(rng, image) for _ in range(200)]
    factors = {name: [dict(params)[name] for params in drawn] for name in ("brightness", "contrast", "saturation")}
    for name, (low, high) in {"brightness": (0.6, 1.4), "contrast": (0.9, 1.2), "saturation": (0.0, 3.0)}.items():
        assert low <= min(factors[name]) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(factors[name]) <= high
    assert len({tuple(name for name, _ in params) for params in drawn}) == 6


def test_a_strength_of_zero_is_left_out_and_a_fixed_factor_is_not(image):
    assert ColorJitter().draw(np.random.default_rng(0), image) == []
    assert ColorJitter(brightness=[1.2, 1.2]).draw(np.random.default_rng(0), image) == [("brightness", 1.2)]


def test_prob_is_the_share_of_changed_images(image):
    rng = np.random.default_rng(0)
    assert 240 < sum(bool(ColorJitter(prob=0.3, hue=0.1).draw(rng, image)) for _ in range(1000)) < 360
    assert all(ColorJitter(prob=2, hue=0.1).draw(rng, image) for _ in range(100))


def test_operations_are_applied_in_the_order_drawn(image):
    jitter = ColorJitter(brightness=0.4, saturation=0.4)
    params = [("saturation", 0.7), ("brightness", 1.3)]
    np.testing.assert_array_equal(jitter.apply(image, params), change_brightness(change_saturation(image, 0.7), 1.3))
    assert (jitter.apply(image, params) != jitter.apply(image, params[::-1])).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"brightness": -0.1}, "brightness must be 0 or more; got -0.1"),
        ({"contrast": float("inf")}, "contrast must be finite; got inf"),
        ({"saturation": [0.5, float("inf")]}, "saturation must be finite; got"),
        ({"hue": 0.6}, "hue must be 0 or more, at most 0.5; got 0.6"),
        ({"contrast": [1.2, 0.8]}, r"contrast must be \[smallest, largest\] within 0..inf"),
        ({"hue": [-0.6, 0.1]}, r"hue must be \[smallest, largest\] within -0.5..0.5"),
        ({"prob": -1}, "prob must be 0 or more"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ColorJitter(**settings)


def test_grey_images_keep_three_channels(image):
    grayscale = RandomGrayscale(0.3)
    expected = np.asarray(Image.fromarray(image).convert("L").convert("RGB"))
    np.testing.assert_array_equal(grayscale.apply(image, True), expected)
    assert grayscale.apply(image, False) is image


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_the_share_of_grey_images_is_p(image, p):
    count = sum(RandomGrayscale(p).draw(SampleRng(0, 1, index), image) for index in range(2000))
    assert abs(count - 2000 * p) <= 4 * math.sqrt(2000 * p * (1 - p))


def test_lighting_shifts_all_pixels_by_the_same(image):
    lighting = PCALighting()
    params = (0.1, -0.2, 0.05)
    values, vectors = (0.2175, 0.0188, 0.0045), ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.814))
    vectors = (*vectors, (-0.5836, -0.6948, 0.4203))
    shifted = lighting.apply(image, params)
    assert shifted.dtype == np.uint8
    for channel in range(3):
        shift = sum(vectors[channel][k] * params[k] * values[k] for k in range(3))
        expected = np.clip(image[:, :, channel] + 255 * shift, 0, 255)
        assert np.abs(shifted[:, :, channel] - expected).max() <= 0.5 + 1e-4
        unit = lighting.apply(image.astype(np.float32) / 255, params)[:, :, channel]
        np.testing.assert_allclose(unit, image[:, :, channel] / 255 + shift, atol=1e-6)


def test_the_components_are_at_right_angles():
    from ppcls.data.transforms.color import PCA_VECTORS

    np.testing.assert_allclose(PCA_VECTORS.T @ PCA_VECTORS, np.eye(3), atol=2e-3)


def test_how_far_an_image_is_shifted_is_normally_distributed(image):
    drawn = np.array([PCALighting().draw(SampleRng(0, 1, index), image) for index in range(4000)])
    assert np.abs(drawn.mean(axis=0)).max() < 4 * 0.1 / math.sqrt(4000)
    assert np.abs(drawn.std(axis=0) - 0.1).max() < 4 * 0.1 / math.sqrt(2 * 4000)
    assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.07


def test_what_works_on_levels_refuses_normalized_images(image):
    for op in (ColorJitter(brightness=0.4), RandomGrayscale(1.0)):
        with pytest.raises(
            ValueError, match=f"{type(op).__name__} works on uint8 images, not on float32; put it before"
        ):
            op(image.astype(np.float32), SampleRng(0, 1, 0))


def test_a_share_beyond_all_images_is_refused():
    with pytest.raises(ValueError, match="p must be within 0..1; got 1.5"):
        RandomGrayscale(1.5)
