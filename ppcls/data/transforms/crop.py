# SPDX-License-Identifier: Apache-2.0
"""Parts of an image: the middle, or a random one."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np

from ppcls.config.registry import TRANSFORMS, Count
from ppcls.data.rng import SampleRng
from ppcls.data.transforms import functional, many
from ppcls.data.transforms.checks import Pixels, check_area
from ppcls.data.transforms.geometry import (
    Interpolation,
    Scaling,
    check_interpolation,
    draw_interpolation,
    width_height,
)
from ppcls.data.transforms.transform import Transform


@TRANSFORMS.register
class CropImage(Transform):
    """Cut the middle out of the image.

    Args:
        size: width and height in pixels: one number for a square, or the list [width, height].

    Raises:
        ValueError: a size below 1; when called, an image smaller than the crop.

    YAML::

        - CropImage: {size: 224}
    """

    def __init__(self, size: int | list[int]) -> None:
        self.size = size
        self._width_height = width_height(size)

    def apply(self, image: np.ndarray, params: Any) -> np.ndarray:
        """Return the middle of the image as a view."""
        crop_width, crop_height = self._width_height
        height, width = image.shape[:2]
        # PaddleClas: the start goes negative and an image of another size comes out.
        if width < crop_width or height < crop_height:
            raise ValueError(
                f"CropImage cannot cut {crop_width} x {crop_height} (width x height) out of an image of "
                f"{width} x {height}; put ResizeImage with a large enough resize_short before it"
            )
        return functional.crop(image, (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width)


class CropParams(NamedTuple):
    """The area that `RandCropImage` cuts out, in pixels, and how it is then scaled."""

    top: int
    left: int
    height: int
    width: int
    interpolation: str | None


class AreaCrop(Transform):
    """What cuts an area out, drawn by `draw` as `CropParams`, and scales it to a size; a `DraftCrop`.

    Attributes:
        backend: as in `ResizeImage`.
    """

    backend: str
    _width_height: tuple[int, int]

    def apply(self, image: np.ndarray, params: CropParams) -> np.ndarray:
        """Return the area scaled to ``size``."""
        area = functional.crop(image, params.top, params.left, params.height, params.width)
        width, height = self._width_height
        return functional.resize(area, height, width, params.interpolation, self.backend)

    def reduction(self, params: CropParams) -> int:
        """Return by how much the image may shrink (1, 2, 4 or 8) so that the area is no smaller than ``size``."""
        width, height = self._width_height
        return next((by for by in (8, 4, 2) if params.height >= by * height and params.width >= by * width), 1)

    def scaled(self, params: CropParams, vertical: float, horizontal: float) -> CropParams:
        """Return the area in an image that is so many times as high and as wide."""
        top, bottom = round(params.top * vertical), round((params.top + params.height) * vertical)
        left, right = round(params.left * horizontal), round((params.left + params.width) * horizontal)
        return CropParams(top, left, max(bottom - top, 1), max(right - left, 1), params.interpolation)

    def rows(self, params: CropParams) -> tuple[int, int]:
        """Return the first row of the area, and the one behind its last."""
        return params.top, params.top + params.height

    def moved_up(self, params: CropParams, num_rows: int) -> CropParams:
        """Return the area in an image that lacks so many rows at its top."""
        return params._replace(top=params.top - num_rows)


@TRANSFORMS.register
class RandCropImage(AreaCrop):
    """Cut a random area out of the image and scale it to ``size`` (Inception's augmentation).

    The area and the proportions are drawn once; an area that does not fit in those proportions is
    made smaller until it does, so nothing is drawn again.

    Args:
        size: output width and height in pixels: one number for a square, or the list [width, height].
        progress_size: for a training schedule that is not supported; leave it out.
        scale: smallest and largest area, as fractions of the image; None means [0.08, 1.0].
        ratio: smallest and largest width / height of the area; None means [3/4, 4/3].
        interpolation: as in `ResizeImage`.
        use_log_aspect: draw the logarithm of the ratio uniformly, so that wide and tall are as likely;
            otherwise the ratio itself.
        backend: as in `ResizeImage`.

    Raises:
        ValueError: a size below 1, ``scale`` not within 0..1, a ratio that is not positive, or ends
            that are swapped.

    YAML::

        - RandCropImage: {size: 224, scale: [0.08, 1.0]}
    """

    def __init__(
        self,
        size: int | list[int],
        progress_size: Literal[None] = None,
        scale: list[float] | None = None,
        ratio: list[float] | None = None,
        interpolation: Interpolation | None = None,
        use_log_aspect: bool = False,
        backend: Literal["cv2", "pil"] = "cv2",
    ) -> None:
        if progress_size is not None:
            raise ValueError("progress_size is not supported; write the size to train at in size")
        check_interpolation(interpolation, backend)
        self.size = size
        self.scale = [0.08, 1.0] if scale is None else list(scale)
        self.ratio = [3.0 / 4.0, 4.0 / 3.0] if ratio is None else list(ratio)
        self.interpolation = interpolation
        self.use_log_aspect = use_log_aspect
        self.backend = backend
        self._width_height = width_height(size)
        check_area(self.scale, self.ratio)

    def draw(self, rng: SampleRng, image: np.ndarray) -> CropParams:
        """Return an area inside the image; drawn in the order ratio, area, column, row."""
        height, width = image.shape[:2]
        if self.use_log_aspect:
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
        else:
            ratio = rng.uniform(self.ratio[0], self.ratio[1])
        # Through the root first: the truncation below then agrees with PaddleClas to the pixel.
        relative_width = math.sqrt(ratio)
        relative_height = 1.0 / relative_width
        largest = min(width / height / relative_width**2, height / width / relative_height**2)
        fraction = rng.uniform(min(self.scale[0], largest), min(self.scale[1], largest))
        side = math.sqrt(width * height * fraction)
        crop_width = min(max(int(side * relative_width), 1), width)
        crop_height = min(max(int(side * relative_height), 1), height)
        left = int(rng.integers(0, width - crop_width + 1))
        top = int(rng.integers(0, height - crop_height + 1))
        return CropParams(top, left, crop_height, crop_width, draw_interpolation(rng, self.interpolation))


@TRANSFORMS.register
class RandomCropImage(Transform):
    """Cut an area of a fixed size out of the image at a random place, without scaling.

    Behind ``Pad: {padding: 4}`` it is the padded crop that CIFAR recipes use.

    Args:
        size: width and height in pixels: one number for a square, or the list [width, height].

    Raises:
        ValueError: a size below 1; when called, an image smaller than the crop.

    YAML::

        - RandomCropImage: {size: 32}
    """

    def __init__(self, size: int | list[int]) -> None:
        self.size = size
        self._width_height = width_height(size)

    def draw(self, rng: SampleRng, image: np.ndarray) -> tuple[int, int]:
        """Return the first row and column of the area."""
        crop_width, crop_height = self._width_height
        height, width = image.shape[:2]
        if width < crop_width or height < crop_height:
            raise ValueError(
                f"{type(self).__name__} cannot cut {crop_width} x {crop_height} (width x height) out of an image of "
                f"{width} x {height}; put Pad or ResizeImage before it"
            )
        return rng.integers(0, height - crop_height + 1), rng.integers(0, width - crop_width + 1)

    def apply(self, image: np.ndarray, params: tuple[int, int]) -> np.ndarray:
        """Return the area as a view."""
        crop_width, crop_height = self._width_height
        return functional.crop(image, *params, crop_height, crop_width)

    def apply_many(self, images: np.ndarray, params: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Return the area of every image."""
        crop_width, crop_height = self._width_height
        return many.crop(images, *params, crop_height, crop_width)


@TRANSFORMS.register
class RandCropImageV2(RandomCropImage):
    """Cut an area of a fixed size out of the image at a random place: `RandomCropImage` by another name.

    PaddleClas has both.

    Args:
        size: width and height in pixels: one number for a square, or the list [width, height].

    Raises:
        ValueError: a size below 1; when called, an image smaller than the crop.

    YAML::

        - RandCropImageV2: {size: 224}
    """

    # PaddleClas: draws one place too many, so that some of its images are a pixel short.


@TRANSFORMS.register
class CropImageAtRatio(Scaling):
    """Cut a square with ``size / (size + pad)`` of the shorter side out of the middle and scale it to ``size``.

    Args:
        size: side of the result in pixels.
        pad: what is left out around it, in the same pixels.
        interpolation: as in `ResizeImage`.

    Raises:
        ValueError: a size below 1, or a negative ``pad``.

    YAML::

        - CropImageAtRatio: {size: 384, pad: 32, interpolation: bilinear}
    """

    def __init__(self, size: Count, pad: Pixels, interpolation: Interpolation = "bilinear") -> None:
        if size < 1 or pad < 0:
            raise ValueError(f"size must be at least 1 and pad at least 0; got {size} and {pad}")
        check_interpolation(interpolation, "cv2")
        self.size = size
        self.pad = pad
        self.interpolation = interpolation

    def apply(self, image: np.ndarray, params: str | None) -> np.ndarray:
        """Return the scaled square."""
        height, width = image.shape[:2]
        side = max(int(self.size / (self.size + self.pad) * min(height, width)), 1)
        square = functional.crop(image, (height - side) // 2, (width - side) // 2, side, side)
        return functional.resize(square, self.size, self.size, params, "cv2")
