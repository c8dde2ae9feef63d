# SPDX-License-Identifier: Apache-2.0
import colorsys

import numpy as np
import pytest

from ppcls.data.transforms import ColorJitter
from ppcls.data.transforms.functional import change_brightness, change_contrast, change_saturation, turn_hue


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
        ({"hue": 0.6}, "hue must be 0 or more, at most 0.5; got 0.6"),
        ({"contrast": [1.2, 0.8]}, r"contrast must be \[smallest, largest\] within 0..inf"),
        ({"hue": [-0.6, 0.1]}, r"hue must be \[smallest, largest\] within -0.5..0.5"),
        ({"prob": -1}, "prob must be 0 or more"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ColorJitter(**settings)
