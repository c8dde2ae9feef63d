# SPDX-License-Identifier: Apache-2.0
"""Policies that were searched (AutoAugment) or that draw from all operations at one magnitude (RandAugment)."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np

from ppcls.config.registry import TRANSFORMS, Count, Within
from ppcls.data.rng import SampleRng
from ppcls.data.transforms.augment_ops import Step, apply_steps
from ppcls.data.transforms.choice import Choice, Hole
from ppcls.data.transforms.searched_policies import ORIGINAL
from ppcls.data.transforms.transform import Transform

Channel = Annotated[int, Within(0, 255)]
GREY = (128, 128, 128)
BLACK = (0, 0, 0)

_NUM_MAGNITUDES = 10

_SEARCHED_SIZES = {
    **dict.fromkeys(("shear_x", "shear_y"), np.linspace(0, 0.3, _NUM_MAGNITUDES)),
    **dict.fromkeys(("translate_x", "translate_y"), np.linspace(0, 150 / 331, _NUM_MAGNITUDES)),
    **dict.fromkeys(("color", "contrast", "sharpness", "brightness"), np.linspace(0, 0.9, _NUM_MAGNITUDES)),
    "rotate": np.linspace(0, 30, _NUM_MAGNITUDES),
    "posterize": np.linspace(8, 4, _NUM_MAGNITUDES).round().astype(int),
    "solarize": np.linspace(256, 0, _NUM_MAGNITUDES),
    "cutout": np.linspace(0, 20, _NUM_MAGNITUDES).round().astype(int),
}


def _searched_choice(name: str, index: int) -> Choice | Hole:
    """An operation at one of AutoAugment's ten magnitudes."""
    if name not in _SEARCHED_SIZES:
        return Choice(name)
    size = _SEARCHED_SIZES[name][index].item()
    if name == "cutout":
        return Hole(size, grey=0)
    if name.startswith(("shear", "translate")):
        return Choice(name, size, signed=True, interpolation="bicubic" if name.startswith("shear") else "nearest")
    return Choice(name, size) if name in ("rotate", "posterize", "solarize") else Choice(name, size, True, around=1.0)


class _Policy(Transform):
    """What all policies share: steps are drawn, then done one after the other."""

    # PaddleClas: AutoAugment, RandAugment and V2 rotate onto grey 128, whatever fillcolor says.

    _fill = GREY

    def apply(self, image: np.ndarray, params: list[Step]) -> np.ndarray:
        """Return the image after the steps."""
        return apply_steps(image, params, self._fill)


@TRANSFORMS.register
class AutoAugment(_Policy):
    """Do one of the 25 pairs of operations that were found for ImageNet (Cubuk et al., CVPR 2019).

    Args:
        fillcolor: red, green and blue of what a rotated or sheared image leaves empty.

    Raises:
        ValueError: when called, for an image that is not uint8.

    YAML::

        - AutoAugment:
    """

    def __init__(self, fillcolor: tuple[Channel, Channel, Channel] = GREY) -> None:
        self.fillcolor = fillcolor
        self._fill = checked_fill(fillcolor)

    def draw(self, rng: SampleRng, image: np.ndarray) -> list[Step]:
        """Return the operations of one pair, each with its probability."""
        pair = ORIGINAL[int(rng.integers(0, len(ORIGINAL)))]
        steps = []
        for name, probability, index in pair:
            if rng.random() < probability:
                steps.append(_searched_choice(name, index).draw(rng, image))
        return steps


class _LayeredPolicy(_Policy):
    """``num_layers`` operations, drawn with replacement from ``_choices``."""

    num_layers: int
    _choices: tuple[Choice | Hole, ...]

    def draw(self, rng: SampleRng, image: np.ndarray) -> list[Step]:
        """Return as many operations as there are layers, all of them equally likely."""
        return [
            self._choices[int(rng.integers(0, len(self._choices)))].draw(rng, image) for _ in range(self.num_layers)
        ]


@TRANSFORMS.register
class RandAugment(_LayeredPolicy):
    """Do ``num_layers`` of 14 operations, all at one magnitude (Cubuk et al., NeurIPS 2020).

    At L = ``magnitude`` / 10: shear by 0.3 L, translate by 150 / 331 L of the side, rotate by 30 L degrees, colour,
    contrast, sharpness and brightness by 1 +- 0.9 L, posterize to int(4 L) bits, solarize from 256 L on; besides
    auto-contrast, equalize and invert.

    Args:
        num_layers: operations for each image.
        magnitude: usually 0 to 10; posterize and solarize get weaker with it.
        fillcolor: red, green and blue of what a moved image leaves empty.

    Raises:
        ValueError: no layers, or a negative magnitude; when called, an image that is not uint8.

    YAML::

        - RandAugment: {num_layers: 2, magnitude: 5}
    """

    def __init__(
        self,
        num_layers: Count = 2,
        magnitude: Annotated[float, Within(0)] = 5,
        fillcolor: tuple[Channel, Channel, Channel] = GREY,
    ) -> None:
        check_layers(num_layers, magnitude)
        self.num_layers = num_layers
        self.magnitude = magnitude
        self.fillcolor = fillcolor
        self._fill = checked_fill(fillcolor)
        level = magnitude / 10
        self._choices = (
            Choice("shear_x", 0.3 * level, signed=True, interpolation="bicubic"),
            Choice("shear_y", 0.3 * level, signed=True, interpolation="bicubic"),
            Choice("translate_x", 150 / 331 * level, signed=True),
            Choice("translate_y", 150 / 331 * level, signed=True),
            Choice("rotate", 30 * level),
            Choice("color", 0.9 * level, signed=True, around=1.0),
            Choice("posterize", int(4 * level)),
            Choice("solarize", 256 * level),
            Choice("contrast", 0.9 * level, signed=True, around=1.0),
            Choice("sharpness", 0.9 * level, signed=True, around=1.0),
            Choice("brightness", 0.9 * level, signed=True, around=1.0),
            Choice("auto_contrast"),
            Choice("equalize"),
            Choice("invert"),
        )


@TRANSFORMS.register
class RandAugmentV2(_LayeredPolicy):
    """Do ``num_layers`` of 16 operations, as EfficientNetV2 is trained with.

    As `RandAugment`, but translations by 100 L pixels, rotations to either side, factors of 1.8 L + 0.1 for colour,
    contrast, sharpness and brightness, all without interpolation; besides, 110 L added to the darker half of the
    levels and a square of 80 L pixels cut out.

    Args:
        num_layers: operations for each image.
        magnitude: usually 5 to 15.
        progress_magnitude: for a training schedule that is not supported; leave it out.
        fillcolor: red, green and blue of what a moved image leaves empty; its red is the grey of what is cut out.

    Raises:
        ValueError: no layers, or a negative magnitude; when called, an image that is not uint8.

    YAML::

        - RandAugmentV2: {num_layers: 2, magnitude: 5}
    """

    def __init__(
        self,
        num_layers: Count = 2,
        magnitude: Annotated[float, Within(0)] = 5,
        progress_magnitude: Literal[None] = None,
        fillcolor: tuple[Channel, Channel, Channel] = GREY,
    ) -> None:
        if progress_magnitude is not None:
            raise ValueError("progress_magnitude is not supported; write the magnitude to train with in magnitude")
        check_layers(num_layers, magnitude)
        self.num_layers = num_layers
        self.magnitude = magnitude
        self.fillcolor = fillcolor
        self._fill = checked_fill(fillcolor)
        level = magnitude / 10
        self._choices = (
            Choice("shear_x", 0.3 * level, signed=True),
            Choice("shear_y", 0.3 * level, signed=True),
            Choice("translate_x_pixels", 100 * level, signed=True),
            Choice("translate_y_pixels", 100 * level, signed=True),
            Choice("rotate", 30 * level, signed=True),
            Choice("color", 1.8 * level + 0.1),
            Choice("posterize", int(4 * level)),
            Choice("solarize", int(256 * level)),
            Choice("solarize_add", int(110 * level)),
            Choice("contrast", 1.8 * level + 0.1),
            Choice("sharpness", 1.8 * level + 0.1),
            Choice("brightness", 1.8 * level + 0.1),
            Choice("auto_contrast"),
            Choice("equalize"),
            Choice("invert"),
            Hole(int(40 * level), grey=self._fill[0]),
        )


@TRANSFORMS.register
class RandAugmentV3(_LayeredPolicy):
    """Do ``num_layers`` of 14 operations, as MobileViTv2 is trained with.

    As `RandAugment`, but everything is interpolated, rotations go to either side, and posterize (8 - int(4 L) bits)
    and solarize (from 255 (1 - L) on) get stronger with the magnitude.

    Args:
        num_layers: operations for each image.
        magnitude: 0 to 10.
        fillcolor: red, green and blue of what a moved image leaves empty.
        interpolation: how a moved image is sampled.

    Raises:
        ValueError: no layers, or a negative magnitude; when called, an image that is not uint8.

    YAML::

        - RandAugmentV3: {num_layers: 2, magnitude: 3}
    """

    def __init__(
        self,
        num_layers: Count = 2,
        magnitude: Annotated[float, Within(0)] = 3,
        fillcolor: tuple[Channel, Channel, Channel] = BLACK,
        interpolation: Literal["nearest", "bilinear", "bicubic"] = "bicubic",
    ) -> None:
        check_layers(num_layers, magnitude)
        self.num_layers = num_layers
        self.magnitude = magnitude
        self.fillcolor = fillcolor
        self.interpolation = interpolation
        self._fill = checked_fill(fillcolor)
        level = magnitude / 10
        self._choices = (
            Choice("shear_x", 0.3 * level, signed=True, interpolation=interpolation),
            Choice("shear_y", 0.3 * level, signed=True, interpolation=interpolation),
            Choice("translate_x", 150 / 331 * level, signed=True, interpolation=interpolation),
            Choice("translate_y", 150 / 331 * level, signed=True, interpolation=interpolation),
            Choice("rotate", 30 * level, signed=True, interpolation=interpolation),
            Choice("color", 0.9 * level, signed=True, around=1.0),
            Choice("posterize", 8 - int(4 * level)),
            Choice("solarize", 255 * (1 - level)),
            Choice("contrast", 0.9 * level, signed=True, around=1.0),
            Choice("sharpness", 0.9 * level, signed=True, around=1.0),
            Choice("brightness", 0.9 * level, signed=True, around=1.0),
            Choice("auto_contrast"),
            Choice("equalize"),
            Choice("invert"),
        )


_V4_NAMES = (
    *("shear_x", "shear_y", "translate_x", "translate_y", "rotate", "color", "posterize", "solarize"),
    *("contrast", "sharpness", "brightness", "auto_contrast", "equalize", "invert", "cutout"),
)
_V4_CHOICES = tuple(_searched_choice(name, index) for name in _V4_NAMES for index in range(1, _NUM_MAGNITUDES))


@TRANSFORMS.register
class RandAugmentV4(_Policy):
    """Draw two of 15 operations, each at one of nine magnitudes, and do each of them with probability 0.5.

    ML-Decoder is trained with it. The magnitudes are AutoAugment's; what is cut out is black.

    Raises:
        ValueError: when called, for an image that is not uint8.

    YAML::

        - RandAugmentV4:
    """

    def draw(self, rng: SampleRng, image: np.ndarray) -> list[Step]:
        """Return none, one or two operations."""
        pair = divmod(int(rng.integers(0, len(_V4_CHOICES) ** 2)), len(_V4_CHOICES))
        return [_V4_CHOICES[index].draw(rng, image) for index in pair if rng.random() < 0.5]


def checked_fill(fill: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return a colour as a tuple.

    Raises:
        ValueError: it is not three numbers within 0..255.
    """
    if len(fill) != 3 or not all(0 <= value <= 255 for value in fill):
        raise ValueError(f"fillcolor must be red, green and blue within 0..255; got {list(fill)}")
    red, green, blue = fill
    return red, green, blue


def check_layers(num_layers: int, magnitude: float) -> None:
    """Refuse numbers that mean nothing.

    Raises:
        ValueError: no layers, or a negative magnitude.
    """
    if num_layers < 1:
        raise ValueError(f"num_layers must be at least 1; got {num_layers}")
    if magnitude < 0:
        raise ValueError(f"magnitude must be 0 or more; got {magnitude}")
