# SPDX-License-Identifier: Apache-2.0
"""The resize, the crop and the flip that PaddleClas takes from ``paddle.vision``: sizes are [height, width] here."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from ppcls.config.registry import TRANSFORMS, Share
from ppcls.data.rng import SampleRng
from ppcls.data.transforms import functional
from ppcls.data.transforms.checks import check_share, refuse_keys
from ppcls.data.transforms.geometry import RandFlipImage, check_interpolation
from ppcls.data.transforms.transform import Transform

Interpolation = Literal["nearest", "bilinear", "bicubic", "area", "box", "lanczos", "hamming"]


@TRANSFORMS.register
class Resize(Transform):
    """Scale the image to [height, width], or so that its shorter side has a length.

    Args:
        size: length of the shorter side in pixels, the longer one keeps the proportions, rounded down; or the
            list [height, width].
        interpolation: ``area`` only with ``cv2``, ``box`` and ``hamming`` only with ``pil``.
        keys: for inputs of several images, which do not exist here; leave it out.
        backend: as in `ResizeImage`. PaddleClas takes ``pil`` where `DecodeImage` has ``backend: pil`` and
            ``to_np: False``, otherwise ``cv2``.

    Raises:
        ValueError: a length below 1, or an interpolation that the backend lacks.

    YAML::

        - Resize: {size: 256}
    """

    def __init__(
        self,
        size: int | list[int],
        interpolation: Interpolation = "bilinear",
        keys: Literal[None] = None,
        backend: Literal["cv2", "pil"] = "cv2",
    ) -> None:
        refuse_keys(keys)
        check_interpolation(interpolation, backend, may_be_random=False)
        height_width(size)
        self.size = size
        self.interpolation = interpolation
        self.backend = backend

    def apply(self, image: np.ndarray, params: Any) -> np.ndarray:
        """Return the scaled image; the image itself where its shorter side has the length already."""
        if not isinstance(self.size, int):
            return functional.resize(image, *self.size, self.interpolation, self.backend)
        height, width = image.shape[:2]
        if min(height, width) == self.size:
            return image
        if width < height:
            height, width = int(self.size * height / width), self.size
        else:
            height, width = self.size, int(self.size * width / height)
        return functional.resize(image, height, width, self.interpolation, self.backend)


@TRANSFORMS.register
class CenterCrop(Transform):
    """Cut the middle out of the image.

    Where one more pixel has to go on one side than on the other, that is not always the same side as with
    `CropImage`: halves are rounded to the even number.

    Args:
        size: height and width in pixels: one number for a square, or the list [height, width].
        keys: as in `Resize`.

    Raises:
        ValueError: a size below 1; when called, an image smaller than the crop.

    YAML::

        - CenterCrop: {size: 224}
    """

    def __init__(self, size: int | list[int], keys: Literal[None] = None) -> None:
        refuse_keys(keys)
        self.size = size
        self._height_width = height_width(size)

    def apply(self, image: np.ndarray, params: Any) -> np.ndarray:
        """Return the middle of the image as a view."""
        crop_height, crop_width = self._height_width
        height, width = image.shape[:2]
        # PaddleClas: the start goes negative and an image of another size comes out.
        if height < crop_height or width < crop_width:
            raise ValueError(
                f"CenterCrop cannot cut {crop_height} x {crop_width} (height x width) out of an image of "
                f"{height} x {width}; put Resize with a large enough size before it"
            )
        top, left = round((height - crop_height) / 2), round((width - crop_width) / 2)
        return functional.crop(image, top, left, crop_height, crop_width)


@TRANSFORMS.register
class RandomHorizontalFlip(RandFlipImage):
    """Mirror a share of the images left to right, at random.

    Args:
        prob: share of the images that are mirrored.
        keys: as in `Resize`.

    Raises:
        ValueError: a ``prob`` outside 0..1.

    YAML::

        - RandomHorizontalFlip: {prob: 0.5}
    """

    flip_code = 1

    def __init__(self, prob: Share = 0.5, keys: Literal[None] = None) -> None:
        refuse_keys(keys)
        check_share("prob", prob)
        self.prob = prob

    def draw(self, rng: SampleRng, image: np.ndarray) -> bool:
        """Return whether this image is mirrored."""
        return rng.random() < self.prob


def height_width(size: int | list[int]) -> tuple[int, int]:
    """Return (height, width) of a size as YAML writes it.

    Raises:
        ValueError: not one or two lengths of at least 1.
    """
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"size must be one length or [height, width], each at least 1; got {size}")
    return pair
