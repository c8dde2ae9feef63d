# SPDX-License-Identifier: Apache-2.0
"""Policies of the operations and magnitudes that AutoAugment searched among, and what all policies share."""

from __future__ import annotations

from typing import Annotated

import numpy as np

from ppcls.config.registry import TRANSFORMS, Within
from ppcls.data.rng import SampleRng
from ppcls.data.transforms.augment_ops import Step, apply_steps
from ppcls.data.transforms.choice import Choice, Hole
from ppcls.data.transforms.searched_policies import ORIGINAL
from ppcls.data.transforms.transform import Transform

Channel = Annotated[int, Within(0, 255)]
GREY = (128, 128, 128)

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


class Policy(Transform):
    """What all policies share: steps are drawn, then done one after the other."""

    # PaddleClas: AutoAugment, RandAugment and V2 rotate onto grey 128, whatever fillcolor says.

    _fill = GREY

    def apply(self, image: np.ndarray, params: list[Step]) -> np.ndarray:
        """Return the image after the steps."""
        return apply_steps(image, params, self._fill)


@TRANSFORMS.register
class AutoAugment(Policy):
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


_V4_NAMES = (
    *("shear_x", "shear_y", "translate_x", "translate_y", "rotate", "color", "posterize", "solarize"),
    *("contrast", "sharpness", "brightness", "auto_contrast", "equalize", "invert", "cutout"),
)
_V4_CHOICES = tuple(_searched_choice(name, index) for name in _V4_NAMES for index in range(1, _NUM_MAGNITUDES))


@TRANSFORMS.register
class RandAugmentV4(Policy):
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
