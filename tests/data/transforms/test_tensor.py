# SPDX-License-Identifier: Apache-2.0
"""Normalization against its formula in float64."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddle.vision.transforms import functional as reference

from ppcls.data.pipeline import Pipeline
from ppcls.data.transforms import Normalize, NormalizeImage, ToCHWImage, ToTensor

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
        ({"scale": float("inf")}, "scale must be finite; got inf"),
        ({"mean": [0, 0, float("inf")]}, "mean must be finite; got"),
        ({"order": "nhwc"}, "order must be 'chw', 'hwc' or ''; got 'nhwc'"),
        ({"channel_num": 1}, "channel_num must be 3 or 4; got 1"),
    ],
)
def test_a_bad_setting_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        NormalizeImage(**params)


@pytest.mark.parametrize("data_format", ["CHW", "HWC"])
def test_levels_become_0_to_1_as_in_paddle_vision(data_format):
    expected = reference.to_tensor(NOISE, data_format).numpy()
    scaled = ToTensor(data_format)(NOISE)
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled, expected)
    np.testing.assert_array_equal(ToTensor("HWC")(scaled), scaled)


@pytest.mark.parametrize("data_format", ["CHW", "HWC"])
def test_normalize_is_that_of_paddle_vision(data_format):
    image = ToTensor(data_format)(NOISE)
    for mean, std in ((0.5, 0.25), ([0.4, 0.5, 0.6], [0.2, 0.25, 0.3])):
        lists = ([value] * 3 if isinstance(value, float) else value for value in (mean, std))
        expected = reference.normalize(image, *lists, data_format)
        normalized = Normalize(mean, std, data_format)(image)
        assert normalized.dtype == np.float32
        np.testing.assert_array_equal(normalized, expected)


def test_turned_channels_are_normalized_in_their_new_order():
    settings = {"mean": [1.0, 2.0, 3.0], "std": [1.0, 2.0, 4.0], "to_rgb": True}
    expected = (NOISE[:, :, ::-1] - np.array([1.0, 2.0, 3.0])) / np.array([1.0, 2.0, 4.0])
    np.testing.assert_allclose(Normalize(data_format="HWC", **settings)(NOISE), expected, rtol=1e-6)
    first = NOISE.transpose(2, 0, 1)
    np.testing.assert_allclose(Normalize(**settings)(first), expected.transpose(2, 0, 1), rtol=1e-6)


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("data_format", ["CHW", "HWC"])
@pytest.mark.parametrize("to_rgb", [False, True])
def test_whole_batches_get_the_numbers_of_the_operations_one_by_one(data_format, to_rgb, on_device):
    ops = [ToTensor(data_format), Normalize([0.4, 0.5, 0.6], [0.2, 0.25, 0.3], data_format, to_rgb)]
    images = np.random.RandomState(0).randint(0, 256, (3, 6, 5, 3)).astype("uint8")
    expected = [Pipeline(ops)(image) for image in images]
    assert expected[0].shape == (3, 6, 5)
    pipeline = Pipeline(ops)
    finish = pipeline.finish()
    finish.on_device = on_device
    batch = np.stack([pipeline(image) for image in images])
    assert batch.dtype == (np.float32 if to_rgb else np.uint8)  # turned channels stay with the workers
    finished, _ = finish(batch, np.zeros(3, np.int64), 1, 0)
    np.testing.assert_allclose(finished.numpy(), expected, atol=1e-6)


def test_channels_stay_where_the_last_operation_put_them():
    assert Pipeline([ToTensor()])(NOISE).shape == (3, 37, 53)
    assert Pipeline([ToTensor("HWC")])(NOISE).shape == (3, 37, 53)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_tensor_is_scaled_as_an_array_is(dtype):
    images = NOISE[None].astype(dtype)
    np.testing.assert_array_equal(ToTensor().finish(paddle.to_tensor(images)).numpy(), ToTensor().finish(images))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ToTensor("NCHW"), "data_format must be CHW or HWC; got 'NCHW'"),
        (lambda: ToTensor(keys=["image"]), "keys is for inputs of several images"),
        (lambda: Normalize(data_format="chw"), "data_format must be CHW or HWC; got 'chw'"),
        (lambda: Normalize(mean=[0.5]), r"mean must be one number, or one for each of 3 channels; got \[0.5\]"),
        (lambda: Normalize(std=0.0), "std must not contain zero; got 0.0"),
        (lambda: Normalize(keys=["image"]), "keys is for inputs of several images"),
        (lambda: Normalize()(NOISE), r"needs 3 channels on axis 0; the image is \[37, 53, 3\]; put ToTensor before it"),
        (lambda: Normalize(data_format="HWC")(NOISE.transpose(2, 0, 1)), "needs 3 channels on axis 2"),
    ],
)
def test_bad_settings_of_paddle_vision_s_operations_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
