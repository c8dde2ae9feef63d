# SPDX-License-Identifier: Apache-2.0
"""Random areas of an image: scaled to a size, or kept where they are."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from ppcls.config.registry import TRANSFORMS, Share
from ppcls.data.rng import SampleRng
from ppcls.data.transforms import functional
from ppcls.data.transforms.checks import check_area, check_share, refuse_keys
from ppcls.data.transforms.crop import AreaCrop, CropParams
from ppcls.data.transforms.geometry import check_interpolation
from ppcls.data.transforms.transform import Transform
from ppcls.data.transforms.vision import Interpolation, height_width

ATTEMPTS = 10
"""How often `draw_area` looks for an area that fits before it takes the middle."""


@TRANSFORMS.register
class RandomResizedCrop(AreaCrop):
    """Cut a random area out of the image and scale it to ``size``.

    Unlike with `RandCropImage`, an area that does not fit is drawn again, up to ten times; after that the
    middle is taken, as much of it as ``ratio`` allows.

    Args:
        size: output height and width in pixels: one number for a square, or the list [height, width].
        scale: smallest and largest area, as fractions of the image.
        ratio: smallest and largest width / height of the area; its logarithm is drawn uniformly.
        interpolation: as in `Resize`.
        keys: as in `Resize`.
        backend: as in `Resize`.

    Raises:
        ValueError: a size below 1, ``scale`` not within 0..1, a ratio that is not positive, ends that are
            swapped, or an interpolation that the backend lacks.

    YAML::

        - RandomResizedCrop: {size: 224, scale: [0.08, 1.0]}
    """

    def __init__(
        self,
        size: int | list[int],
        scale: tuple[Share, Share] = (0.08, 1.0),
        ratio: tuple[float, float] = (3.0 / 4.0, 4.0 / 3.0),
        interpolation: Interpolation = "bilinear",
        keys: Literal[None] = None,
        backend: Literal["cv2", "pil"] = "cv2",
    ) -> None:
        refuse_keys(keys)
        check_interpolation(interpolation, backend, may_be_random=False)
        check_area(scale, ratio)
        self.size = size
        self.scale = scale
        self.ratio = ratio
        self.interpolation = interpolation
        self.backend = backend
        height, width = height_width(size)
        self._width_height = width, height

    def draw(self, rng: SampleRng, image: np.ndarray) -> CropParams:
        """Return an area inside the image."""
        return CropParams(*draw_area(rng, image, self.scale, self.ratio), self.interpolation)


@TRANSFORMS.register
class CropWithPadding(Transform):
    """Keep a random area of the image where it is, and fill the rest.

    Args:
        prob: share of the images that are changed.
        padding_num: value of the pixels outside the area, 0..255.
        size: accepted for PaddleClas's files; the image keeps its size.
        scale: as in `RandomResizedCrop`.
        ratio: as in `RandomResizedCrop`.
        interpolation: accepted for PaddleClas's files; nothing is scaled.
        key: for inputs of several images, which do not exist here; leave it out.

    Raises:
        ValueError: a ``prob`` outside 0..1, a value that no pixel can have, or a bad ``scale`` or ``ratio``.

    YAML::

        - CropWithPadding: {prob: 0.5, padding_num: 127, scale: [0.5, 1.0]}
    """

    def __init__(
        self,
        prob: Share = 1.0,
        padding_num: int = 0,
        size: int | list[int] = 224,
        scale: tuple[Share, Share] = (0.08, 1.0),
        ratio: tuple[float, float] = (3.0 / 4.0, 4.0 / 3.0),
        interpolation: Interpolation = "bilinear",
        key: Literal[None] = None,
    ) -> None:
        refuse_keys(key)
        check_share("prob", prob)
        check_area(scale, ratio)
        if not 0 <= padding_num <= 255:
            raise ValueError(f"padding_num must be within 0..255; got {padding_num}")
        self.prob = prob
        self.padding_num = padding_num
        self.size = size
        self.scale = scale
        self.ratio = ratio
        self.interpolation = interpolation

    def draw(self, rng: SampleRng, image: np.ndarray) -> tuple[int, int, int, int] | None:
        """Return the area that is kept as (top, left, height, width); None for an image that stays as it is."""
        return draw_area(rng, image, self.scale, self.ratio) if rng.random() < self.prob else None

    def apply(self, image: np.ndarray, params: tuple[int, int, int, int] | None) -> np.ndarray:
        """Return the image with everything outside the area filled."""
        if params is None:
            return image
        filled = np.full_like(image, self.padding_num)
        functional.crop(filled, *params)[:] = functional.crop(image, *params)
        return filled


def draw_area(
    rng: SampleRng, image: np.ndarray, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Return a random area of the image as (top, left, height, width); drawn in the order size, ratio, row, column.

    Args:
        rng: where the numbers come from.
        image: looked at for its shape.
        scale: smallest and largest area, as fractions of the image.
        ratio: smallest and largest width / height.
    """
    height, width = image.shape[:2]
    for _ in range(ATTEMPTS):
        area = rng.uniform(*scale) * (height * width)
        drawn = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        area_width, area_height = round(math.sqrt(area * drawn)), round(math.sqrt(area / drawn))
        if 0 < area_width <= width and 0 < area_height <= height:
            top, left = rng.integers(0, height - area_height + 1), rng.integers(0, width - area_width + 1)
            return int(top), int(left), area_height, area_width
    area_height = height if width / height >= ratio[0] else max(round(width / ratio[0]), 1)
    area_width = width if width / height <= ratio[1] else max(round(height * ratio[1]), 1)
    return (height - area_height) // 2, (width - area_width) // 2, area_height, area_width
