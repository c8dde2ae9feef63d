# SPDX-License-Identifier: Apache-2.0
"""RandAugment: some of all operations, all at one magnitude, in three versions."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np

from ppcls.config.registry import TRANSFORMS, Count, Within
from ppcls.data.rng import SampleRng
from ppcls.data.transforms.augment_ops import Step
from ppcls.data.transforms.auto_augment import GREY, Channel, Policy, checked_fill
from ppcls.data.transforms.choice import Choice, Hole

BLACK = (0, 0, 0)


class _LayeredPolicy(Policy):
    """``num_layers`` operations, drawn with replacement from ``_choices``."""

    _choices: tuple[Choice | Hole, ...]

    def __init__(self, num_layers: int, magnitude: float, fillcolor: tuple[int, int, int]) -> None:
        if num_layers < 1:
            raise ValueError(f"num_layers must be at least 1; got {num_layers}")
        if not 0 <= magnitude < math.inf:
            raise ValueError(f"magnitude must be 0 or more, and finite; got {magnitude}")
        self.num_layers = num_layers
        self.magnitude = magnitude
        self.fillcolor = fillcolor
        self._fill = checked_fill(fillcolor)

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
        super().__init__(num_layers, magnitude, fillcolor)
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
        super().__init__(num_layers, magnitude, fillcolor)
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
        super().__init__(num_layers, magnitude, fillcolor)
        self.interpolation = interpolation
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
