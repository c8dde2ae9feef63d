# SPDX-License-Identifier: Apache-2.0
"""Operations inside others: how they are read from YAML, and that they draw for the images they get."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import numpy as np
import pytest

from ppcls.config.node import load_tree
from ppcls.config.registry import TRANSFORMS
from ppcls.config.signature import Problems, parse
from ppcls.data.rng import SampleRng
from ppcls.data.transforms import (
    ColorJitter,
    CropImage,
    Cutout,
    NormalizeImage,
    RandAugmentV2,
    RandCropImage,
    RandFlipImage,
    RandomApply,
    RandomCropImage,
    RandomErasing,
    ResizeImage,
)

IMAGE = np.random.RandomState(7).randint(0, 256, (37, 53, 3)).astype("uint8")


def read(text, tmp_path):
    (tmp_path / "ops.yaml").write_text(text, encoding="utf-8")
    problems = Problems()
    calls = parse(load_tree(tmp_path / "ops.yaml").value["ops"], "ops", Annotated[list[Callable], TRANSFORMS], problems)
    return calls, problems


def test_nested_operations_are_read_and_built(tmp_path):
    calls, problems = read(
        """
ops:
  - RandomApply:
      p: 1/4
      transforms:
        - ColorJitter: {brightness: 0.4}
        - RandomApply:
            p: 0.5
            transforms:
              - RandFlipImage:
              - RandomErasing: {EPSILON: '0.25', sh: 1.0/3.0, mean: [0., 0., 0.]}
""",
        tmp_path,
    )
    assert problems.errors == [] and problems.warnings == []
    outer = calls[0]()
    assert isinstance(outer, RandomApply) and outer.p == 0.25
    jitter, inner = outer.transforms
    assert isinstance(jitter, ColorJitter) and isinstance(inner, RandomApply)
    flip, erasing = inner.transforms
    assert isinstance(flip, RandFlipImage) and isinstance(erasing, RandomErasing)
    assert (erasing.EPSILON, erasing.sh, erasing.mean) == (0.25, pytest.approx(1 / 3), (0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p: 0.5, transforms: [{ColorJiter: {}}]", "ops.0.RandomApply.transforms.0: unknown transform 'ColorJiter'"),
        ("p: 0.5, transforms: [{Cutout: {lenght: 3}}]", "transforms.0.Cutout.lenght: Cutout has no parameter 'lenght'"),
        ("p: 0.5", "RandomApply needs 'transforms', which has no default"),
        ("p: 1.5, transforms: [ToCHWImage]", "ops.0.RandomApply.p: expected 0 to 1; got 1.5"),
        ("p: 0.5, transforms: Cutout", "expected a list of transforms"),
    ],
)
def test_mistakes_inside_are_found_with_their_place(text, message, tmp_path):
    _, problems = read(f"ops:\n  - RandomApply: {{{text}}}\n", tmp_path)
    assert len(problems.errors) == 1 and message in problems.errors[0] and "ops.yaml:2" in problems.errors[0]


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("Cutout: {fill_value: none}", "fill_value", None),
        ("Cutout: {fill_value: null}", "fill_value", None),
        ("Cutout: {fill_value: 'None'}", "fill_value", None),
        ("Cutout: {fill_value: [1, 2, 3]}", "fill_value", (1, 2, 3)),
        ("RandAugment: {fillcolor: [1, 2, 3], magnitude: 7}", "fillcolor", (1, 2, 3)),
        ("TimmAutoAugment: {img_size: [224, 192], mean: [0.5, 0.5, 0.5]}", "img_size", [224, 192]),
        ("RandAugmentV2: {progress_magnitude: null}", "magnitude", 5),
    ],
)
def test_values_are_read_as_paddleclas_writes_them(text, field, value, tmp_path):
    calls, problems = read(f"ops:\n  - {text}\n", tmp_path)
    assert problems.errors == []
    assert getattr(calls[0](), field) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RandAugmentV2: {progress_magnitude: [5, 8]}", "only null is supported"),
        ("RandAugment: {fillcolor: [1, 2, 300]}", "expected 0 to 255; got 300"),
        ("RandAugment: {num_layers: 0}", "expected at least 1; got 0"),
        ("RandAugmentV3: {interpolation: lanczos}", "expected one of 'nearest', 'bilinear', 'bicubic'; got 'lanczos'"),
        ("RandomErasing: {mode: noise}", "expected one of 'const', 'rand', 'pixel'; got 'noise'"),
    ],
)
def test_values_that_mean_nothing_are_found_when_read(text, message, tmp_path):
    _, problems = read(f"ops:\n  - {text}\n", tmp_path)
    assert len(problems.errors) == 1 and message in problems.errors[0]


def test_p_is_the_share_of_the_images_and_all_is_done_or_nothing():
    both = RandomApply(0.3, [ResizeImage(size=[20, 30]), CropImage(8)])
    sizes = [both(IMAGE, SampleRng(0, 1, index)).shape for index in range(2000)]
    assert set(sizes) == {(8, 8, 3), (37, 53, 3)}
    assert abs(sizes.count((8, 8, 3)) - 600) < 5 * math.sqrt(2000 * 0.3 * 0.7)
    assert all(RandomApply(0, [CropImage(8)])(IMAGE, SampleRng(0, 1, index)) is IMAGE for index in range(50))
    assert all(RandomApply(1, [CropImage(8)])(IMAGE, SampleRng(0, 1, index)).shape[0] == 8 for index in range(50))


NESTED = [
    [RandFlipImage(), ColorJitter(brightness=0.4)],
    [RandCropImage(16), RandomCropImage(12), Cutout(length=4), RandFlipImage()],
    [ResizeImage(size=[70, 90]), RandomCropImage(60), NormalizeImage(order=""), RandomErasing(EPSILON=1)],
    [RandomApply(0.5, [RandomCropImage(20)]), RandAugmentV2(4), RandomApply(0.5, [RandFlipImage(), Cutout(2, 5)])],
]


@pytest.mark.parametrize("transforms", NESTED, ids=repr)
def test_calling_it_is_drawing_and_applying(transforms):
    nested = RandomApply(0.7, transforms)
    assert nested.is_random
    before = IMAGE.copy()
    for index in range(60):
        called = nested(IMAGE, SampleRng(0, 1, index))
        params = nested.draw(SampleRng(0, 1, index), IMAGE)
        np.testing.assert_array_equal(called, nested.apply(IMAGE, params))
        np.testing.assert_array_equal(called, nested.apply(IMAGE, params))
        if params is not None:
            assert len(params) == len(transforms)
    np.testing.assert_array_equal(IMAGE, before)


def test_draws_look_at_nothing_but_the_shape():
    class Shape:
        shape = (37, 53, 3)

    for transforms in NESTED:
        nested = RandomApply(0.7, transforms)
        for index in range(30):
            assert nested.draw(SampleRng(0, 1, index), Shape()) == nested.draw(SampleRng(0, 1, index), IMAGE)


def test_it_needs_a_generator_an_operation_and_a_share():
    with pytest.raises(ValueError, match="RandomApply draws at random: call it with"):
        RandomApply(0.5, [CropImage(8)])(IMAGE)
    with pytest.raises(ValueError, match="transforms must name at least one operation"):
        RandomApply(0.5, [])
    with pytest.raises(ValueError, match="p must be within 0..1; got 2"):
        RandomApply(2, [CropImage(8)])
