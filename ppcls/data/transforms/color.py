# SPDX-License-Identifier: Apache-2.0
"""Colours of an image."""

from __future__ import annotations

import numpy as np

from ppcls.config.registry import TRANSFORMS
from ppcls.data.rng import SampleRng
from ppcls.data.transforms import functional
from ppcls.data.transforms.transform import Transform


@TRANSFORMS.register
class ColorJitter(Transform):
    """Change brightness, contrast, saturation and hue by random amounts, in random order.

    The factors of the first three are drawn uniformly, 1 leaves the image as it is; a strength of 0 leaves
    the operation out. Brightness blends with black, contrast with the mean grey, saturation with the grey image.

    Args:
        prob: share of the images that are changed; PaddleClas's default, 2, means all as well.
        brightness: strength, such as 0.4 for factors from 0.6 to 1.4, or the list [0.6, 1.4].
        contrast: as ``brightness``.
        saturation: as ``brightness``.
        hue: largest turn of the colour circle, 0..0.5 of it in either direction, or the list [-0.1, 0.1].

    Raises:
        ValueError: a negative strength, a hue beyond 0.5, or ends that are swapped.

    YAML::

        - ColorJitter: {brightness: 0.4, contrast: 0.4, saturation: 0.4}
    """

    def __init__(
        self,
        prob: float = 1.0,
        brightness: float | list[float] = 0.0,
        contrast: float | list[float] = 0.0,
        saturation: float | list[float] = 0.0,
        hue: float | list[float] = 0.0,
    ) -> None:
        if prob < 0:
            raise ValueError(f"prob must be 0 or more; got {prob}")
        self.prob = prob
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue
        ranges = {
            "brightness": _range("brightness", brightness),
            "contrast": _range("contrast", contrast),
            "saturation": _range("saturation", saturation),
            "hue": _range("hue", hue, middle=0.0, low=-0.5, high=0.5),
        }
        neutral = {"hue": (0.0, 0.0)}
        self._ranges = {name: ends for name, ends in ranges.items() if ends != neutral.get(name, (1.0, 1.0))}

    def draw(self, rng: SampleRng, image: np.ndarray) -> list[tuple[str, float]]:
        """Return the operations, each with its factor, in the order in which they are applied."""
        if rng.random() >= self.prob:
            return []
        drawn = [(name, rng.uniform(low, high)) for name, (low, high) in self._ranges.items()]
        order = rng.random(len(drawn)).argsort(kind="stable")
        return [drawn[place] for place in order]

    def apply(self, image: np.ndarray, params: list[tuple[str, float]]) -> np.ndarray:
        """Return the changed image."""
        for name, factor in params:
            image = functional.COLOR_CHANGES[name](image, factor)
        return image


def _range(
    name: str, strength: float | list[float], middle: float = 1.0, low: float = 0.0, high: float = float("inf")
) -> tuple[float, float]:
    if isinstance(strength, list):
        if len(strength) != 2 or not low <= strength[0] <= strength[1] <= high:
            raise ValueError(f"{name} must be [smallest, largest] within {low:g}..{high:g}; got {strength}")
        return strength[0], strength[1]
    if strength < 0 or middle + strength > high:
        raise ValueError(f"{name} must be 0 or more{f', at most {high:g}' if high < 1 else ''}; got {strength}")
    return max(low, middle - strength), middle + strength
