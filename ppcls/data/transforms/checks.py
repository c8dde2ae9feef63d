# SPDX-License-Identifier: Apache-2.0
"""What several operations ask of their settings, and of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from ppcls.config.registry import Within

Level = Annotated[float, Within(0, 255)]
"""The value of a pixel."""

Pixels = Annotated[int, Within(0)]
"""A length or a position."""


def check_share(name: str, share: float) -> None:
    """Refuse a number that is no share.

    Raises:
        ValueError: it is outside 0..1.
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"{name} must be within 0..1; got {share}")


def check_area(scale: Sequence[float], ratio: Sequence[float]) -> None:
    """Refuse limits of an area that cannot be drawn from.

    Raises:
        ValueError: they are not positive, swapped, or more than the whole image.
    """
    if len(scale) != 2 or not 0.0 < scale[0] <= scale[1] <= 1.0:
        raise ValueError(f"scale must be [smallest, largest] with 0 < smallest <= largest <= 1; got {list(scale)}")
    if len(ratio) != 2 or not 0.0 < ratio[0] <= ratio[1]:
        raise ValueError(f"ratio must be [smallest, largest] with 0 < smallest <= largest; got {list(ratio)}")


def refuse_keys(keys: None) -> None:
    """Refuse the names of inputs, of which there is one here.

    Raises:
        ValueError: there are some.
    """
    if keys is not None:
        raise ValueError(f"keys is for inputs of several images, which do not exist here; leave it out; got {keys}")


def three_levels(name: str, value: float | tuple[float, float, float]) -> tuple[float, float, float]:
    """Return the colour that YAML writes as one level or three.

    Raises:
        ValueError: another number of levels, or one outside 0..255.
    """
    levels = (value,) * 3 if isinstance(value, (int, float)) else tuple(value)
    if len(levels) != 3 or not all(0 <= level <= 255 for level in levels):
        raise ValueError(f"{name} must be one level or [R, G, B], each within 0..255; got {value}")
    return levels


def check_channels_last(name: str, image: np.ndarray) -> None:
    """Refuse an image whose channels are not on its last axis any more.

    Raises:
        ValueError: it is not [H, W, C] of 3 or 4 channels.
    """
    if image.ndim != 3 or image.shape[2] not in (3, 4):
        raise ValueError(f"{name} needs images [H, W, C], this is {list(image.shape)}; put it before ToCHWImage")
