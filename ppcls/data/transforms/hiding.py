# SPDX-License-Identifier: Apache-2.0
"""Parts of an image set to zero: the tiles of a grid, or its bars."""

from __future__ import annotations

import math
from typing import Annotated, Literal, NamedTuple

import numpy as np

from ppcls.config.registry import TRANSFORMS, Count, Share, Within
from ppcls.data.rng import SampleRng
from ppcls.data.transforms.checks import check_channels_last, check_share
from ppcls.data.transforms.transform import Transform


class HiddenTiles(NamedTuple):
    """The tiles that `HideAndSeek` blackens: their side in pixels, and which of them, bool [rows, columns]."""

    side: int
    is_hidden: np.ndarray


@TRANSFORMS.register
class HideAndSeek(Transform):
    """Set every other tile of a grid to zero, at random (Singh and Lee, "Hide-and-Seek", ICCV 2017).

    The side of the tiles is drawn for each image: 16, 32, 44 or 56 pixels, or none at all. Behind `NormalizeImage`
    zero is the mean colour, before it black.

    Raises:
        ValueError: when called, for an image that is not [H, W, C] of 3 or 4 channels.

    YAML::

        - HideAndSeek:
    """

    sides = (0, 16, 32, 44, 56)

    def draw(self, rng: SampleRng, image: np.ndarray) -> HiddenTiles | None:
        """Return which tiles are hidden, each with probability 0.5; None for an image that stays as it is."""
        side = self.sides[int(rng.integers(0, len(self.sides)))]
        if side == 0:
            return None
        rows, columns = -(-image.shape[0] // side), -(-image.shape[1] // side)
        return HiddenTiles(side, _coins(rng, rows * columns).reshape(rows, columns))

    def apply(self, image: np.ndarray, params: HiddenTiles | None) -> np.ndarray:
        """Return a copy with the tiles set to zero."""
        if params is None:
            return image
        # PaddleClas: takes the image as [C, H, W], so that at most its first columns are touched.
        check_channels_last("HideAndSeek", image)
        tiles = params.is_hidden.repeat(params.side, axis=0).repeat(params.side, axis=1)
        image = image.copy()
        image[tiles[: image.shape[0], : image.shape[1]]] = 0
        return image


class Bars(NamedTuple):
    """The bars of `GridMask`: period and width in pixels, where the first ones begin, and the turn in degrees."""

    period: int
    width: int
    top: int
    left: int
    degrees: int


@TRANSFORMS.register
class GridMask(Transform):
    """Set the bars of a regular grid to zero, or all between them (Chen et al., "GridMask data augmentation", 2020).

    Behind `NormalizeImage` zero is the mean colour, before it black.

    Args:
        d1: smallest distance from bar to bar, in pixels.
        d2: the distance stays below this.
        rotate: the grid is turned by a whole number of degrees below this.
        ratio: width of a bar over the distance.
        mode: 0 removes horizontal and vertical bars, so that squares stay; 1 removes the squares.
        prob: share of the images that are changed.

    Raises:
        ValueError: distances below 1 or swapped, no degree to turn by, or a share not within 0..1; when called, an
            image that is not [H, W, C] of 3 or 4 channels.

    YAML::

        - GridMask: {d1: 96, d2: 224, rotate: 1, ratio: 0.5, mode: 0}
    """

    def __init__(
        self,
        d1: Count = 96,
        d2: Annotated[int, Within(2)] = 224,
        rotate: Annotated[int, Within(1, 360)] = 1,
        ratio: Share = 0.5,
        mode: Literal[0, 1] = 0,
        prob: Share = 1.0,
    ) -> None:
        if not 1 <= d1 < d2:
            raise ValueError(f"d1 must be at least 1 and below d2; got d1={d1} and d2={d2}")
        if not 1 <= rotate <= 360:
            raise ValueError(f"rotate must be within 1..360; got {rotate}")
        if mode not in (0, 1):
            raise ValueError(f"mode must be 0 or 1; got {mode}")
        check_share("ratio", ratio)
        check_share("prob", prob)
        self.d1 = d1
        self.d2 = d2
        self.rotate = rotate
        self.ratio = ratio
        self.mode = mode
        self.prob = prob

    def draw(self, rng: SampleRng, image: np.ndarray) -> Bars | None:
        """Return the grid for one image; None for an image that stays as it is."""
        # PaddleClas: prob is multiplied by an epoch that is always 0, so that no image is changed.
        if rng.random() >= self.prob:
            return None
        period = int(rng.integers(self.d1, self.d2))
        top, left = int(rng.integers(0, period)), int(rng.integers(0, period))
        return Bars(period, int(period * self.ratio + 0.5), top, left, int(rng.integers(0, self.rotate)))

    def apply(self, image: np.ndarray, params: Bars | None) -> np.ndarray:
        """Return a copy with zeros where the grid has it so."""
        if params is None:
            return image
        check_channels_last("GridMask", image)
        height, width = image.shape[:2]
        rows, columns = np.ogrid[:height, :width]
        if params.degrees:
            # Turned about the middle, the way `rotate` turns an image.
            cos, sin = math.cos(math.radians(params.degrees)), math.sin(math.radians(params.degrees))
            middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
            y, x = rows - middle_y, columns - middle_x
            rows, columns = np.round(sin * x + cos * y + middle_y), np.round(cos * x - sin * y + middle_x)
        in_bar = (rows - params.top) % params.period < params.width
        in_bar = in_bar | ((columns - params.left) % params.period < params.width)
        image = image.copy()
        image[in_bar if self.mode == 0 else ~in_bar] = 0
        return image


def _coins(rng: SampleRng, num: int) -> np.ndarray:
    """Return bool [num], each true with probability 0.5, at one draw for 32 of them."""
    words = np.array([int(rng.integers(0, 2**32)) for _ in range(-(-num // 32))], np.uint64)
    return ((words[:, None] >> np.arange(32, dtype=np.uint64)) & np.uint64(1)).astype(bool).ravel()[:num]
