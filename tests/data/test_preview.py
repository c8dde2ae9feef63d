# SPDX-License-Identifier: Apache-2.0
import cv2
import numpy as np
import pytest

from ppcls.data.batch_ops import CutmixOperator, MixupOperator
from ppcls.data.pipeline import Pipeline
from ppcls.data.preview import Sample, mixed, original, transformed, viewable
from ppcls.data.rng import SampleRng
from ppcls.data.transforms import (
    DecodeImage,
    Normalize,
    NormalizeImage,
    RandCropImage,
    RandomCropImage,
    ToCHWImage,
    ToTensor,
)
from ppcls.utils.errors import DataError

NOISE = np.random.RandomState(7).randint(0, 256, (37, 53, 3)).astype("uint8")
PNG = cv2.imencode(".png", NOISE[:, :, ::-1])[1].tobytes()


def test_the_original_is_decoded_and_nothing_else():
    np.testing.assert_array_equal(original(Sample("a.png", PNG)), NOISE)
    np.testing.assert_array_equal(original(Sample("image 0", NOISE)), NOISE)


@pytest.mark.parametrize(
    "ops",
    [
        [],
        [NormalizeImage(order="")],
        [NormalizeImage(scale=0.5, mean=[3, 4, 5], std=[1, 2, 4], order="hwc", channel_num=4)],
        [NormalizeImage(order="", output_fp16=True)],
        [ToCHWImage(), NormalizeImage(order="chw")],
        [ToTensor()],
        [ToTensor(), Normalize([0.4, 0.5, 0.6], [0.2, 0.3, 0.25])],
        [ToTensor(), Normalize(0.5, 0.25, to_rgb=True)],
        [DecodeImage(to_rgb=False), NormalizeImage(order="")],
        [DecodeImage(to_rgb=False), ToTensor("HWC"), Normalize([0.4, 0.5, 0.6], 0.2, "HWC", to_rgb=True)],
    ],
    ids=str,
)
def test_normalization_is_undone(ops):
    pipeline = Pipeline(ops)
    (image,) = transformed([Sample("a.png", PNG)], pipeline, seed=0, epoch=1)
    seen = viewable(image, pipeline)
    assert seen.dtype == np.uint8 and seen.shape == NOISE.shape
    assert np.abs(seen.astype(int) - NOISE).max() <= (1 if image.dtype == np.float16 else 0)


def test_what_is_drawn_is_what_a_training_draws():
    pipeline = Pipeline([DecodeImage(), RandCropImage(16)])
    samples = [Sample("a.png", PNG)] * 3
    for epoch in (1, 2):
        expected = [pipeline(PNG, SampleRng(5, epoch, index)) for index in range(3)]
        np.testing.assert_array_equal(transformed(samples, pipeline, 5, epoch), expected)


@pytest.mark.parametrize(
    ("image", "message"),
    [(b"", "b.png: the file is empty"), (PNG, "b.png: RandomCropImage cannot cut 60 x 60")],
)
def test_an_image_that_does_not_do_is_named(image, message):
    with pytest.raises(DataError, match=message):
        transformed([Sample("b.png", image)], Pipeline([DecodeImage(), RandomCropImage(60)]), 0, 1)


def test_mixed_images_are_told_by_row():
    images = [np.full((3, 8, 8), value, np.float32) for value in (0, 100, 200)]
    seen = set()
    for epoch in range(1, 20):
        batch, texts = mixed(images, [MixupOperator(10, alpha=1.0)], 10, seed=0, epoch=epoch)
        for image, text in zip(batch, texts):
            parts = [part.split("% of ") for part in text.split(" + ")]
            value = sum(int(share) * (0, 100, 200)[int(row) - 1] for share, row in parts) / 100
            # Shares are rounded to percents, and those below 2 are not told.
            assert abs(image.mean() - value) <= 4.5, text
            seen.add(len(parts))
    assert seen == {1, 2}


def test_more_images_than_classes_are_mixed_but_not_told():
    images = [np.zeros((3, 8, 8), np.float32)] * 3
    batch, texts = mixed(images, [CutmixOperator(2)], 2, seed=0, epoch=1)
    assert batch.shape == (3, 3, 8, 8) and texts == ["", "", ""]


def test_images_of_different_sizes_cannot_be_mixed():
    with pytest.raises(DataError, match="different sizes after transform_ops; crop them to one"):
        mixed([np.zeros((3, 8, 8)), np.zeros((3, 8, 9))], [MixupOperator(2)], 2, 0, 1)
