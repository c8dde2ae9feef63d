# SPDX-License-Identifier: Apache-2.0
import cv2
import numpy as np
import pytest

from ppcls.data.rng import SampleRng
from ppcls.data.transforms import CropImageAtRatio, Pad, RandCropImageV2, RandomCropImage


@pytest.fixture
def image():
    return np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)


@pytest.mark.parametrize(("mode", "numpy_mode"), [("edge", "edge"), ("reflect", "reflect"), ("symmetric", "symmetric")])
def test_borders_are_those_of_numpy(image, mode, numpy_mode):
    expected = np.pad(image, [(3, 3), (3, 3), (0, 0)], mode=numpy_mode)
    np.testing.assert_array_equal(Pad(3, padding_mode=mode)(image), expected)


def test_a_constant_border_has_the_fill(image):
    expected = np.pad(image, [(2, 2), (2, 2), (0, 0)], constant_values=9)
    np.testing.assert_array_equal(Pad(2, fill=9)(image), expected)


def test_a_random_crop_reaches_every_place_equally_often(image):
    crop = RandomCropImage([4, 3])
    rng = np.random.default_rng(0)
    drawn = [crop.draw(rng, image) for _ in range(2400)]
    counts = {place: drawn.count(place) for place in set(drawn)}
    assert set(counts) == {(top, left) for top in range(3) for left in range(4)}
    assert all(140 < count < 260 for count in counts.values())
    np.testing.assert_array_equal(crop.apply(image, (2, 1)), image[2:5, 1:5])


def test_a_padded_crop_of_the_images_own_size_moves_it_by_at_most_the_border(image):
    rng = np.random.default_rng(1)
    padded = Pad(4)(image)
    for _ in range(20):
        top, left = RandomCropImage([7, 5]).draw(rng, padded)
        assert 0 <= top <= 8 and 0 <= left <= 8


def test_bad_settings_are_refused(image):
    with pytest.raises(ValueError, match=r"cannot cut 8 x 3 \(width x height\) out of an image of 7 x 5; put Pad"):
        RandomCropImage([8, 3])(image, np.random.default_rng(0))
    with pytest.raises(ValueError, match="padding must be 0 or more"):
        Pad(-1)
    with pytest.raises(ValueError, match=r"fill must be within 0\.\.255"):
        Pad(1, fill=256)
    with pytest.raises(ValueError, match="padding_mode must be one of constant, edge"):
        Pad(1, padding_mode="wrap")


def test_no_crop_is_a_pixel_short(image):
    crop = RandCropImageV2([4, 3])
    drawn = {crop.draw(SampleRng(0, 1, index), image) for index in range(400)}
    assert drawn == {(top, left) for top in range(3) for left in range(4)}
    for top, left in drawn:
        np.testing.assert_array_equal(crop.apply(image, (top, left)), image[top : top + 3, left : left + 4])
    np.testing.assert_array_equal(RandCropImageV2([7, 5])(image, SampleRng(0, 1, 0)), image)
    with pytest.raises(ValueError, match="RandCropImageV2 cannot cut 8 x 8"):
        RandCropImageV2(8)(image, SampleRng(0, 1, 0))


@pytest.mark.parametrize(("size", "pad", "side", "top", "left"), [(4, 0, 5, 0, 1), (4, 1, 4, 0, 1), (2, 2, 2, 1, 2)])
def test_a_square_of_the_ratio_is_cut_out_of_the_middle(image, size, pad, side, top, left):
    square = image[top : top + side, left : left + side]
    for name, method in (("bilinear", cv2.INTER_LINEAR), ("nearest", cv2.INTER_NEAREST)):
        expected = cv2.resize(square, (size, size), interpolation=method)
        np.testing.assert_array_equal(CropImageAtRatio(size, pad, name)(image), expected)


def test_a_random_interpolation_is_drawn(image):
    crop = CropImageAtRatio(4, 1, "random")
    assert crop.is_random and not CropImageAtRatio(4, 1).is_random
    assert {crop.draw(SampleRng(0, 1, index), image) for index in range(40)} == {"bilinear", "bicubic"}


def test_a_ratio_of_nothing_is_refused():
    for size, pad in ((0, 1), (4, -1)):
        with pytest.raises(ValueError, match="size must be at least 1 and pad at least 0"):
            CropImageAtRatio(size, pad)
