# SPDX-License-Identifier: Apache-2.0
"""Pixels equal to PaddleClas's for all recorded cases of the operations that exist here."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import random
from importlib.metadata import PackageNotFoundError, version

import cv2
import numpy as np
import PIL
import pytest

import ppcls.data.all  # noqa: F401 (registers)
from ppcls.config.registry import TRANSFORMS

EXCEPTIONS = {
    "DecodeImage of 'pil'": "an image travels as bytes or as an array here",
    "DecodeImage of 'dict_png'": "dicts belong to PaddleClas's multi-input operations",
    "DecodeImage of 'numpy'": "PaddleClas takes an array as BGR and reverses it; here arrays are RGB",
    "CropImage beyond the image": "PaddleClas returns an image of another size; here it is an error",
    "Padv2": "PaddleClas returns float32; here an image stays uint8, and halves are rounded",
    "ResizeImage with size and resize_short": "PaddleClas ignores size; here it is an error",
    "an error is recorded": "PaddleClas refuses it as well",
}


def make_image(rule: str, height: int, width: int) -> np.ndarray:
    """The images of the reference, by the rules it gives."""
    i, j, c = np.ogrid[:height, :width, :3]
    if rule == "noise":
        return np.random.RandomState(7).randint(0, 256, (height, width, 3)).astype("uint8")
    if rule == "ramp":
        return ((2 * i + 3 * j + 50 * c) % 256).astype("uint8")
    return np.rint(127.5 + 127.5 * np.sin(i / 11 + c) * np.cos(j / 17 - c)).astype("uint8")


def build(ops: list[dict], input_as: str = "numpy") -> list:
    """The operations of a case; PaddleClas's `Resize` goes by what it is given, ours by a parameter."""
    transforms = []
    for op in ops:
        ((name, params),) = op.items()
        params = dict(params or {})
        if isinstance(params.get("scale"), str):
            numerator, denominator = params["scale"].split("/")
            params["scale"] = float(numerator) / float(denominator)
        if name == "Resize" and input_as == "pil":
            params["backend"] = "pil"
        transforms.append(TRANSFORMS[name](**params))
    return transforms


def make_input(case: dict):
    image = make_image(case["image"], *case["hw"])
    if case["input_as"] == "png_bytes":
        return cv2.imencode(".png", image[:, :, ::-1])[1].tobytes()
    return image


def exception_of(case: dict) -> str | None:
    """Which of EXCEPTIONS a case falls under."""
    if "error" in case:
        return "an error is recorded"
    for op in case.get("ops", []):
        ((name, params),) = op.items()
        if name == "DecodeImage" and case["input_as"] != "png_bytes":
            return f"DecodeImage of {case['input_as']!r}"
        if name == "CropImage" and len(case["ops"]) == 1 and min(case["hw"]) < np.max(params["size"]):
            return "CropImage beyond the image"
        if name == "ResizeImage" and {"size", "resize_short"} <= params.keys():
            return "ResizeImage with size and resize_short"
        if name == "Padv2":
            return name
    return None


def load_cases(reference, family: str) -> tuple[list[dict], bool]:
    """The cases of our operations, and whether the libraries are those that made them."""
    data = json.loads((reference / "transform" / f"{family}.json").read_text())
    cases = [case for case in data["cases"] if all(name in TRANSFORMS for op in case.get("ops", []) for name in op)]
    try:
        opencv = version("opencv-python-headless").rsplit(".", 1)[0]
    except PackageNotFoundError:
        opencv = cv2.__version__
    installed = {"opencv": opencv, "pillow": PIL.__version__, "numpy": np.__version__}
    return cases, all(data["versions"][name] == value for name, value in installed.items())


def check(actual: np.ndarray, expected: dict, same_versions: bool, case: dict) -> None:
    assert list(actual.shape) == expected["shape"], case
    assert str(actual.dtype) == expected["dtype"], case
    if same_versions:
        digest = hashlib.sha256(np.ascontiguousarray(actual).tobytes()).hexdigest()
        assert digest == expected["sha256"], case
    tolerance = 1.0 if actual.dtype == np.uint8 else 0.02
    np.testing.assert_allclose(actual.astype("float64").mean(), expected["mean"], atol=tolerance)
    np.testing.assert_allclose(actual.astype("float64").std(), expected["std"], atol=tolerance)
    np.testing.assert_allclose(actual.ravel()[:16].astype("float64"), expected["first16"], atol=2 * tolerance)


@pytest.mark.parametrize(
    ("family", "num_checked"),
    [
        ("ResizeImage", 465),
        ("CropImage", 31),
        ("Pad", 5),
        ("Resize_vision", 30),
        ("NormalizeImage", 27),
        ("DecodeImage", 28),
        ("eval_pipeline", 32),
    ],
)
def test_every_case_has_the_recorded_pixels(reference, family, num_checked):
    cases, same_versions = load_cases(reference, family)
    checked = 0
    for case in cases:
        if exception_of(case) is not None:
            assert exception_of(case) in EXCEPTIONS
            continue
        image = make_input(case)
        for transform in build(case["ops"], case["input_as"]):
            image = transform(image)
        check(image, case["output"], same_versions, case)
        checked += 1
    assert checked == num_checked


def test_every_jpeg_has_the_recorded_pixels(reference):
    cases, same_versions = load_cases(reference, "DecodeImage_jpeg")
    assert len(cases) == 6
    for case in cases:
        image = TRANSFORMS["DecodeImage"](**case["params"])(base64.b64decode(case["jpeg_base64"]))
        check(image, case["output"], same_versions, case)


class RecordedRandom:
    """Python's or NumPy's old generator with the methods that the transforms call: draws as PaddleClas does."""

    def __init__(self, seed: int, library: str) -> None:
        self._python = random.Random(seed)
        self._numpy = np.random.RandomState(seed)
        self._is_numpy = library == "numpy"

    def random(self) -> float:
        return self._numpy.random_sample() if self._is_numpy else self._python.random()

    def uniform(self, low: float, high: float) -> float:
        return self._numpy.uniform(low, high) if self._is_numpy else self._python.uniform(low, high)

    def integers(self, low: int, high: int) -> int:
        return self._numpy.randint(low, high) if self._is_numpy else self._python.randint(low, high - 1)

    def normal(self, loc: float, scale: float) -> float:
        return self._numpy.normal(loc, scale)


@pytest.mark.parametrize(
    ("name", "library", "num_checked"),
    [
        ("RandCropImage", "python", 18),
        ("RandFlipImage", "python", 18),
        ("RandomCropImage", "python", 6),
        ("RandomGrayscale", "python", 6),
        ("RandomRot90", "python", 6),
        ("RandomInterpolationAugment", "numpy", 6),
        ("RandomErasing", "python", 6),
    ],
)
def test_random_operations_draw_in_the_recorded_order(reference, name, library, num_checked):
    cases, same_versions = load_cases(reference, "random_seeded")
    cases = [case for case in cases if name in case["ops"][0] and case["ops"][0][name].get("mode") != "pixel"]
    assert len(cases) == num_checked
    for case in cases:
        (transform,) = build(case["ops"])
        image = transform(make_input(case), RecordedRandom(case["seed"], library))
        check(image, case["output"], same_versions, case)


class BothRandoms(RecordedRandom):
    """Both generators at once, as PaddleClas's policies draw; NumPy draws the whole numbers below ``ends``."""

    def __init__(self, seed: int, ends: set[int]) -> None:
        super().__init__(seed, "python")
        self._ends = ends

    def integers(self, low: int, high: int) -> int:
        return self._numpy.randint(low, high) if high in self._ends else super().integers(low, high)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return self._numpy.uniform(low, high)

    def normal(self, loc: float, scale: float) -> float:
        return self._python.gauss(loc, scale)

    def beta(self, a: float, b: float) -> float:
        return self._numpy.beta(a, b)

    def dirichlet(self, alpha: list[float]) -> np.ndarray:
        return self._numpy.dirichlet(alpha)


@pytest.mark.parametrize(
    ("name", "num_operations"),
    [
        ("AutoAugment", None),
        ("RandAugment", 14),
        ("RandAugmentV2", 16),
        ("RandAugmentV3", 14),
        ("RandAugmentV4", None),
        ("TimmAutoAugment", 15),
        ("AugMix", 9),
    ],
)
def test_policies_have_the_recorded_draws_and_pixels(reference, name, num_operations):
    cases, same_versions = load_cases(reference, "random_seeded")
    cases = [case for case in cases if name in case["ops"][0]]
    assert len(cases) == 6
    for case in cases:
        (transform,) = build(case["ops"])
        image = make_input(case)
        # Besides the operations, NumPy draws the middles of squares.
        rng = BothRandoms(case["seed"], {num_operations, *(side + 1 for side in image.shape[:2])})
        check(transform(image, rng), case["output"], same_versions, case)


def test_pca_lighting_is_the_recorded_one_made_visible(reference):
    cases = [case for case in load_cases(reference, "random_seeded")[0] if "PCALighting" in case["ops"][0]]
    assert len(cases) == 6
    for case in cases:
        image = make_input(case)
        (lighting,) = build(case["ops"])
        recorded = np.array(case["output"]["first16"]) - image.ravel()[:16]
        params = lighting.draw(RecordedRandom(case["seed"], "numpy"), image)
        np.testing.assert_allclose(
            lighting.apply(image.astype("float32"), params).ravel()[:16], recorded + image.ravel()[:16], atol=2e-5
        )
        # What is meant for 0..1 is added to 0..255 there, and comes back from the float32 sum with an error of 1e-5.
        expected = np.clip(image.ravel()[:16] + 255 * recorded, 0, 255)
        assert np.abs(lighting.apply(image, params).ravel()[:16] - expected).max() <= 0.51


def test_padv2_has_the_recorded_pixels_but_for_the_halves(reference):
    cases = [case for case in load_cases(reference, "Pad")[0] if exception_of(case) == "Padv2"]
    assert len(cases) == 5
    for case in cases:
        (padding,) = build(case["ops"])
        padded = padding(make_input(case))
        assert padded.dtype == np.uint8 and list(padded.shape) == case["output"]["shape"]
        half_up = padded.astype("float32")
        fill = case["ops"][0]["Padv2"].get("fill_value", [127.5] * 3)
        half_up[(padded == np.rint(fill)).all(axis=2)] = fill
        assert hashlib.sha256(half_up.tobytes()).hexdigest() == case["output"]["sha256"]


def test_crop_beyond_the_image_is_refused_where_paddleclas_returns_another_size(reference):
    cases = [case for case in load_cases(reference, "CropImage")[0] if exception_of(case)]
    assert len(cases) == 2
    for case in cases:
        assert case["output"]["shape"][:2] != [60, 60]
        with pytest.raises(ValueError, match="CropImage cannot cut 60 x 60"):
            build(case["ops"])[0](make_input(case))


def test_a_few_recorded_pixels_without_the_reference():
    noise = make_image("noise", 37, 53)
    cases = [
        (noise, [{"ResizeImage": {"size": 32}}], (32, 32, 3), 124.832682, [192, 152, 92, 146]),
        (noise, [{"CropImage": {"size": [24, 36]}}], (36, 24, 3), 123.832176, [192, 34, 56, 201]),
        (noise, [{"NormalizeImage": {"order": ""}}], (37, 53, 3), 0.179737, [0.878928, 1.395658, -1.368714, 2.094786]),
        (
            make_image("noise", 300, 200),
            [{"ResizeImage": {"resize_short": 256}}, {"CropImage": {"size": 224}}, {"NormalizeImage": {"order": ""}}]
            + [{"ToCHWImage": None}],
            (3, 224, 224),
            0.222571,
            [1.187174, 0.485059, 0.108314, -1.021920],
        ),
    ]
    for image, ops, shape, mean, first in cases:
        for transform in build(ops):
            image = transform(image)
        assert image.shape == shape
        assert math.isclose(image.astype("float64").mean(), mean, abs_tol=2e-3)
        np.testing.assert_allclose(image.ravel()[:4].astype("float64"), first, atol=1e-5)
