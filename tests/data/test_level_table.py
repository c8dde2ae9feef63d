# SPDX-License-Identifier: Apache-2.0
"""The table that does the last transforms of a model: to the bit as they do it one by one, or not at all."""

import numpy as np
import pytest

from ppcls.data.images import transform_image
from ppcls.data.level_table import TINY, LevelTable, with_table
from ppcls.data.transforms import (
    CropImage,
    DecodeImage,
    Normalize,
    NormalizeImage,
    RandomErasing,
    ResizeImage,
    ToCHWImage,
    ToTensor,
)
from ppcls.utils.errors import DataError

RNG = np.random.default_rng(0)
SIDES = [(1, 1), (5, 7), (32, 32), (63, 65), (224, 180)]
LAST = {
    "ImageNet's": [NormalizeImage(order=""), ToCHWImage()],
    "CIFAR's": [NormalizeImage(mean=[0.5] * 3, std=[0.5] * 3, order="hwc"), ToCHWImage()],
    "channels first": [ToCHWImage(), NormalizeImage(order="chw")],
    "PyTorch's": [ToTensor(), Normalize(mean=[0.4914, 0.4822, 0.4465], std=[0.2471, 0.2435, 0.2616])],
    "to 0..1": [ToTensor()],
    "twice": [
        NormalizeImage(order=""),
        NormalizeImage(scale=3.0, mean=[0.1, 0, -7], std=[-1, 1e-8, 9], order=""),
        ToCHWImage(),
    ],
}


def one_by_one(ops, image):
    for op in ops:
        image = op(image)
    return image


def assert_same(image, ops):
    transforms = with_table(ops)
    assert isinstance(transforms[-1], LevelTable)
    made, expected = one_by_one(transforms, image), one_by_one(ops, image)
    assert (made.dtype, made.shape) == (expected.dtype, expected.shape)
    assert made.flags.c_contiguous
    np.testing.assert_array_equal(made.view(np.uint32), np.ascontiguousarray(expected).view(np.uint32))


@pytest.mark.parametrize("last", LAST)
@pytest.mark.parametrize("sides", SIDES)
def test_a_table_gives_the_bits_of_the_transforms(last, sides):
    assert_same(RNG.integers(0, 256, [*sides, 3], np.uint8), LAST[last])


def test_there_are_sizes_on_both_sides_of_what_is_tiny():
    sizes = [3 * height * width for height, width in SIDES]
    assert min(sizes) < TINY <= max(sizes)


@pytest.mark.parametrize("sides", SIDES[2:])
@pytest.mark.parametrize("first", [[], [CropImage(20)], [DecodeImage(to_rgb=False)], [ResizeImage(size=30)]])
def test_a_part_of_an_image_and_another_order_of_channels_give_the_same_bits(sides, first):
    assert_same(RNG.integers(0, 256, [*sides, 3], np.uint8), [*first, *LAST["ImageNet's"]])


def test_every_level_in_every_channel_is_in_the_table():
    image = np.stack(np.meshgrid(np.arange(256), np.arange(256), indexing="ij"), -1).astype(np.uint8)
    assert_same(np.concatenate([image, image[..., :1] ^ image[..., 1:]], -1), LAST["ImageNet's"])


@pytest.mark.parametrize(
    "ops",
    [
        [],
        [CropImage(8)],
        [ToCHWImage()],
        [NormalizeImage(order="")],
        [NormalizeImage(order="", output_fp16=True), ToCHWImage()],
        [NormalizeImage(order="", channel_num=4), ToCHWImage()],
        [Normalize(data_format="HWC", to_rgb=True), ToCHWImage()],
        [NormalizeImage(order="chw"), ToCHWImage()],
        [NormalizeImage(order=""), RandomErasing()],
        [NormalizeImage(order=""), ToCHWImage(), lambda image: image],
    ],
)
def test_what_a_table_cannot_do_stays_as_it_is(ops):
    transforms = with_table(ops)
    assert len(transforms) == len(ops)
    assert all(mine is given for mine, given in zip(transforms, ops))


@pytest.mark.parametrize(
    "image",
    [
        RNG.random([8, 8, 3], np.float32),
        RNG.integers(0, 65536, [8, 8, 3], np.uint16),
        RNG.integers(0, 256, [3, 8, 8], np.uint8),
        RNG.integers(0, 256, [8, 8, 4], np.uint8),
        RNG.integers(0, 256, [8, 8], np.uint8),
    ],
)
def test_of_other_arrays_the_transforms_make_or_say_what_they_always_do(image):
    def outcome(ops):
        try:
            return transform_image(image, ops, "a.png").tolist()
        except DataError as error:
            return str(error)

    ops = LAST["ImageNet's"]
    assert outcome(with_table(ops)) == outcome(ops)


def test_the_transforms_themselves_are_left_alone():
    ops = list(LAST["ImageNet's"])
    with_table(ops)
    assert ops == LAST["ImageNet's"]
