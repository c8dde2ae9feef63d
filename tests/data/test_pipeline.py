# SPDX-License-Identifier: Apache-2.0
"""Where the operations run makes no difference to what comes out."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

import ppcls.engine  # noqa: F401  (registers every part)
from ppcls.config import load_config
from ppcls.data.finish import Finish
from ppcls.data.pipeline import Pipeline
from ppcls.data.rng import BatchRng, SampleRng
from ppcls.data.transforms import (
    ColorJitter,
    DecodeImage,
    Normalize,
    NormalizeImage,
    Pad,
    RandCropImage,
    RandFlipImage,
    RandomCropImage,
    RandomErasing,
    ResizeImage,
    ToCHWImage,
    ToTensor,
)
from ppcls.data.transforms.crop import CropParams

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
RECIPES = [
    pytest.param(path, mode, id=f"{path.relative_to(CONFIGS)}-{mode}")
    for path in sorted(CONFIGS.rglob("*.yaml"))
    if "_base_" not in path.parts
    for mode in ("Train", "Eval")
]


def jpeg(height, width, seed=0, blur=3):
    """An encoded image with some structure: blurred noise."""
    noise = np.random.RandomState(seed).randint(0, 256, (height, width, 3)).astype(np.float32)
    image = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), blur), None, 0, 255, cv2.NORM_MINMAX)
    return cv2.imencode(".jpg", image)[1].tobytes()


def one_by_one(ops, image, rng):
    for op in ops:
        image = op(image, rng)
    return image if any(isinstance(op, ToCHWImage) for op in ops) else image.transpose(2, 0, 1)


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize(("path", "mode"), RECIPES)
def test_every_recipe_gives_the_numbers_of_its_operations_one_by_one(path, mode, on_device):
    dataset = getattr(load_config(path).DataLoader, mode).dataset
    ops = [op() for op in dataset.source.kwargs["transform_ops"]]
    if any(isinstance(op, DecodeImage) for op in ops):
        ops[0].draft = False  # other pixels are what it is for
        images = [jpeg(260 + 7 * seed, 380 - 9 * seed, seed) for seed in range(4)]
    else:
        images = list(np.random.RandomState(0).randint(0, 256, (4, 32, 32, 3)).astype(np.uint8))
    expected = [one_by_one(ops, image, SampleRng(3, 2, index)) for index, image in enumerate(images)]
    pipeline = Pipeline(ops)
    assert np.array_equal(pipeline(images[1], SampleRng(3, 2, 1)), expected[1])
    finish = pipeline.finish()
    here = np.stack([pipeline(image, SampleRng(3, 2, index)) for index, image in enumerate(images)])
    assert here.dtype == np.uint8 and here.shape[-1] == 3
    finish = Finish(finish.ops, finish.is_channel_first, on_device=on_device)
    batch, labels = finish(here, np.arange(4), 2, 0)
    assert batch.numpy().dtype == np.float32
    assert np.abs(batch.numpy() - np.stack(expected)).max() <= 1e-6
    assert labels.tolist() == [0, 1, 2, 3]


class Negative:
    """An operation that is no `Transform`: it has to see every image."""

    def __call__(self, image, rng=None):
        return -image


@pytest.mark.parametrize(
    ("ops", "num_finishing"),
    [
        ([ResizeImage(8), NormalizeImage(order=""), ToCHWImage()], 2),
        ([ResizeImage(8), ToCHWImage(), NormalizeImage(order="chw")], 2),
        ([ResizeImage(8), NormalizeImage(order=""), RandFlipImage()], 0),
        ([NormalizeImage(order=""), Negative(), NormalizeImage(order="")], 1),
        ([NormalizeImage(order="", output_fp16=True, channel_num=4)], 1),
        ([DecodeImage(channel_first=True), NormalizeImage(order="chw")], 1),
        ([ResizeImage(8)], 0),
    ],
)
@pytest.mark.parametrize("on_device", [False, True])
def test_what_cannot_be_split_runs_as_it_is_written(ops, num_finishing, on_device):
    image = np.random.RandomState(0).randint(0, 256, (12, 16, 3)).astype(np.uint8)
    whole = Pipeline(ops)
    expected = whole(image, SampleRng(0, 1, 0))
    split = Pipeline(ops)
    finish = split.finish()
    assert split.num_finishing == len(finish.ops) == num_finishing
    finish = Finish(finish.ops, finish.is_channel_first, on_device=on_device)
    (batch,) = finish(split(image, SampleRng(0, 1, 0))[None], np.zeros(1, np.int64), 1, 0)[0].numpy()
    assert batch.dtype == expected.dtype and np.array_equal(batch, expected)


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ([ToCHWImage(), RandCropImage(8)], "RandCropImage takes images [H, W, C], ToCHWImage makes [C, H, W]; put"),
        ([DecodeImage(channel_first=True), RandFlipImage()], "RandFlipImage takes images [H, W, C], DecodeImage makes"),
        ([ToTensor(), Normalize(), RandomErasing()], "RandomErasing takes images [H, W, C], ToTensor makes"),
        ([NormalizeImage(order=""), ToCHWImage(), ToCHWImage()], "ToCHWImage takes images [H, W, C], ToCHWImage makes"),
        ([ToCHWImage(), NormalizeImage(order="hwc")], "NormalizeImage takes images [H, W, C], ToCHWImage makes"),
        ([ToTensor(), Normalize(data_format="HWC")], "Normalize takes images [H, W, C], ToTensor makes"),
    ],
)
def test_what_works_on_the_last_axis_is_refused_behind_what_moves_it(ops, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Pipeline(ops)


def test_what_works_on_the_first_axis_may_stand_behind_what_moves_it():
    ops = [ToTensor(), Normalize(), ToTensor("HWC"), NormalizeImage(order="chw"), Negative()]
    assert Pipeline(ops)(np.zeros((4, 5, 3), np.uint8)).shape == (3, 4, 5)


@pytest.mark.parametrize("flip_code", [-1, 0, 1])
@pytest.mark.parametrize("padding_mode", ["constant", "edge", "reflect", "symmetric"])
def test_a_whole_batch_becomes_what_its_images_become(padding_mode, flip_code):
    images = np.random.RandomState(0).randint(0, 256, (40, 12, 10, 3)).astype(np.uint8)
    crop, flip = RandomCropImage([8, 9]), RandFlipImage(flip_code)
    pipeline = Pipeline([DecodeImage(to_rgb=False), Pad(3, 9, padding_mode), crop, flip])
    indices = np.arange(100, 140)
    expected = [pipeline(image, SampleRng(5, 2, index)) for image, index in zip(images, indices)]
    assert pipeline.takes_batches
    assert np.array_equal(pipeline.many(images.copy(), BatchRng(5, 2, indices)), np.stack(expected))
    finish = pipeline.finish()
    assert finish.ops == [] and not finish.is_channel_first


@pytest.mark.parametrize("strengths", [(0.4, 0.4, 0.4), (0.9, 0, 0), (0, 3.0, 0), (0, 0, 2.0, 0.5), ()])
@pytest.mark.parametrize("prob", [1.0, 0.6, 0.0])
def test_colours_of_a_whole_batch_change_as_those_of_its_images(prob, strengths):
    images = np.random.RandomState(0).randint(0, 256, (40, 12, 10, 3)).astype(np.uint8)
    images[:8] //= 8
    pipeline = Pipeline([ColorJitter(prob, *strengths), RandFlipImage()])
    indices = np.arange(40)
    expected = [pipeline(image, SampleRng(5, 2, index)) for image, index in zip(images, indices)]
    pipeline.finish()
    result = pipeline.many(images.copy(), BatchRng(5, 2, indices)).transpose(0, 3, 1, 2)
    assert np.array_equal(result, np.stack(expected))


def test_operations_that_need_each_image_take_no_batches():
    assert not Pipeline([RandFlipImage(), RandCropImage(8)]).takes_batches
    assert not Pipeline([RandFlipImage(), Negative()]).takes_batches


def test_a_draft_cuts_out_the_same_area():
    data = jpeg(900, 1200, blur=20)
    decode, draft, crop = DecodeImage(), DecodeImage(draft=True), RandCropImage(64, scale=[0.3, 1.0])
    for index in range(8):
        decoded = decode(data)
        params = crop.draw(SampleRng(0, 1, index), decoded)
        assert crop.reduction(params) in (4, 8)
        expected = crop.apply(decoded, params).transpose(2, 0, 1).astype(int)
        result = Pipeline([draft, crop])(data, SampleRng(0, 1, index))
        # Half a pixel at most is lost to rounding; an area that lies two pixels away is further off by far.
        shifted = np.abs(result[:, :, 2:] - expected[:, :, :-2]).mean()
        assert np.abs(result - expected).mean() < shifted / 2


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(64, 64, 1), (127, 200, 1), (128, 128, 2), (300, 255, 2), (300, 256, 4), (999, 512, 8)],
)
def test_an_area_never_becomes_smaller_than_the_result(height, width, expected):
    assert RandCropImage(64).reduction(CropParams(0, 0, height, width, None)) == expected


def test_a_draft_of_a_crop_that_is_not_shrunk_twofold_is_the_full_decode():
    data = jpeg(100, 120)
    area, draft_area = ([DecodeImage(draft=draft), RandCropImage(64)] for draft in (False, True))
    for index in range(8):
        expected = Pipeline(area)(data, SampleRng(0, 1, index))
        assert np.array_equal(Pipeline(draft_area)(data, SampleRng(0, 1, index)), expected)


def test_without_a_crop_behind_it_or_without_random_numbers_a_draft_decodes_everything():
    data = jpeg(400, 300)
    expected = Pipeline([DecodeImage(), ResizeImage(32)])(data)
    assert np.array_equal(Pipeline([DecodeImage(draft=True), ResizeImage(32)])(data, SampleRng(0, 1, 0)), expected)
