# SPDX-License-Identifier: Apache-2.0
"""Where the pixels go: resize, pad, flip."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import numpy as np

from ppcls.config.registry import TRANSFORMS, Share, Within
from ppcls.data.rng import SampleRng
from ppcls.data.transforms import functional, many
from ppcls.data.transforms.checks import check_share
from ppcls.data.transforms.transform import Transform

Interpolation = Literal["nearest", "bilinear", "bicubic", "area", "box", "lanczos", "hamming", "random"]

RANDOM_INTERPOLATIONS = ("bilinear", "bicubic")
"""What ``interpolation: random`` chooses from."""


class Scaling(Transform):
    """What scales images by an interpolation that may be drawn.

    Attributes:
        interpolation: as in `ResizeImage`.
    """

    interpolation: str | None

    @property
    def is_random(self) -> bool:
        """Whether the interpolation is drawn anew for every image."""
        return self.interpolation == "random"

    def draw(self, rng: SampleRng, image: np.ndarray) -> str | None:
        """Return the interpolation for this image."""
        return draw_interpolation(rng, self.interpolation)


@TRANSFORMS.register
class ResizeImage(Scaling):
    """Scale the image, either to a size or so that its shorter side has a length.

    Args:
        size: output width and height in pixels: one number for a square, or the list [width, height].
        resize_short: length of the shorter side in pixels; the longer one keeps the proportions.
        interpolation: None means bilinear; ``area`` only with ``cv2``, ``box`` and ``hamming`` only
            with ``pil``; ``random`` draws bilinear or bicubic for each image.
        backend: ``cv2`` does not antialias when it shrinks, ``pil`` does.
        return_numpy: accepted for PaddleClas's files; images always travel as arrays.

    Raises:
        ValueError: not exactly one of ``size`` and ``resize_short``, a length below 1, or an
            interpolation that the backend lacks.

    YAML::

        - ResizeImage: {resize_short: 256}
    """

    def __init__(
        self,
        size: int | list[int] | None = None,
        resize_short: int | None = None,
        interpolation: Interpolation | None = None,
        backend: Literal["cv2", "pil"] = "cv2",
        return_numpy: bool = True,
    ) -> None:
        # PaddleClas: with both given, size is ignored without a word.
        if (size is None) == (resize_short is None):
            raise ValueError(f"give one of size and resize_short; got size={size} and resize_short={resize_short}")
        if resize_short is not None and resize_short < 1:
            raise ValueError(f"resize_short must be at least 1; got {resize_short}")
        check_interpolation(interpolation, backend)
        self.size = size
        self.resize_short = resize_short
        self.interpolation = interpolation
        self.backend = backend
        self.return_numpy = return_numpy
        self._width_height = None if size is None else width_height(size)

    def apply(self, image: np.ndarray, params: str | None) -> np.ndarray:
        """Return the scaled image."""
        if self._width_height is None:
            height, width = image.shape[:2]
            factor = self.resize_short / min(width, height)
            width, height = int(round(width * factor)), int(round(height * factor))
        else:
            width, height = self._width_height
        return functional.resize(image, height, width, params, self.backend)


@TRANSFORMS.register
class Pad(Transform):
    """Widen the image on all four sides.

    Args:
        padding: width of the border in pixels.
        fill: value of the new pixels, 0..255, with ``constant``.
        padding_mode: ``constant`` fills; ``edge`` repeats the outermost pixels; ``reflect`` mirrors the image at
            its outermost pixels, ``symmetric`` beyond them.
        backend: accepted for PaddleClas's files; both do the same.

    Raises:
        ValueError: a negative ``padding``, or a ``fill`` that no pixel can have.

    YAML::

        - Pad: {padding: 4}
    """

    def __init__(
        self,
        padding: Annotated[int, Within(0)],
        fill: Annotated[int, Within(0, 255)] = 0,
        padding_mode: Literal["constant", "edge", "reflect", "symmetric"] = "constant",
        backend: Literal["cv2", "pil"] = "pil",
    ) -> None:
        if padding < 0:
            raise ValueError(f"padding must be 0 or more; got {padding}")
        if not 0 <= fill <= 255:
            raise ValueError(f"fill must be within 0..255; got {fill}")
        if padding_mode not in functional.BORDERS:
            raise ValueError(f"padding_mode must be one of {', '.join(functional.BORDERS)}; got {padding_mode!r}")
        self.padding = padding
        self.fill = fill
        self.padding_mode = padding_mode
        self.backend = backend

    def apply(self, image: np.ndarray, params: Any) -> np.ndarray:
        """Return the image with its border."""
        return functional.pad(image, self.padding, self.padding_mode, self.fill)

    def apply_many(self, images: np.ndarray, params: Any) -> np.ndarray:
        """Return every image with its border."""
        return many.pad(images, self.padding, self.padding_mode, self.fill)


@TRANSFORMS.register
class RandFlipImage(Transform):
    """Mirror every other image, at random.

    Args:
        flip_code: 1 left to right, 0 top to bottom, -1 both.

    Raises:
        ValueError: another ``flip_code``.

    YAML::

        - RandFlipImage: {flip_code: 1}
    """

    def __init__(self, flip_code: Literal[-1, 0, 1] = 1) -> None:
        if flip_code not in (-1, 0, 1):
            raise ValueError(f"flip_code must be -1, 0 or 1; got {flip_code}")
        self.flip_code = flip_code

    def draw(self, rng: SampleRng, image: np.ndarray) -> bool:
        """Return whether this image is mirrored: true for one half."""
        return rng.integers(0, 2) == 1

    def apply(self, image: np.ndarray, params: bool) -> np.ndarray:
        """Return the image, mirrored if ``params``."""
        return functional.flip(image, self.flip_code) if params else image

    def apply_many(self, images: np.ndarray, params: np.ndarray) -> np.ndarray:
        """Mirror those images for which ``params`` is true, in place."""
        images[params] = many.flip(images[params], self.flip_code)
        return images


class LowResolution(NamedTuple):
    """What `RandomInterpolationAugment` does to an image."""

    side: int
    shrink_by: str
    enlarge_by: str


@TRANSFORMS.register
class RandomInterpolationAugment(Transform):
    """Shrink a share of the images to a square and enlarge them again, each way by an interpolation drawn at random.

    The square's side is drawn uniformly between a fifth and the whole of the image's height.

    Args:
        prob: share of the images that are changed.

    Raises:
        ValueError: a ``prob`` outside 0..1.

    YAML::

        - RandomInterpolationAugment: {prob: 0.5}
    """

    def __init__(self, prob: Share) -> None:
        check_share("prob", prob)
        self.prob = prob

    def draw(self, rng: SampleRng, image: np.ndarray) -> LowResolution | None:
        """Return the side in pixels and both interpolations; None for an image that stays as it is."""
        if rng.random() >= self.prob:
            return None
        side = max(int(rng.uniform(0.2, 1.0) * image.shape[0]), 1)
        names = list(functional.INTERPOLATIONS["cv2"])
        return LowResolution(side, *(names[int(rng.integers(0, len(names)))] for _ in range(2)))

    def apply(self, image: np.ndarray, params: LowResolution | None) -> np.ndarray:
        """Return the image in its size, with the details gone that the smaller one could not hold."""
        if params is None:
            return image
        small = functional.resize(image, params.side, params.side, params.shrink_by, "cv2")
        return functional.resize(small, *image.shape[:2], params.enlarge_by, "cv2")


def width_height(size: int | list[int]) -> tuple[int, int]:
    """Return (width, height) of a size as YAML writes it.

    Raises:
        ValueError: not one or two lengths of at least 1.
    """
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"size must be one length or [width, height], each at least 1; got {size}")
    return pair


def check_interpolation(interpolation: str | None, backend: str, may_be_random: bool = True) -> None:
    """Refuse an interpolation or an engine that `functional.resize` does not have.

    Args:
        interpolation: None for the default one.
        backend: the engine.
        may_be_random: whether ``random`` will do.

    Raises:
        ValueError: it does not; names those that it has.
    """
    if backend not in functional.INTERPOLATIONS:
        raise ValueError(f"backend must be one of {', '.join(functional.INTERPOLATIONS)}; got {backend!r}")
    offered = [*functional.INTERPOLATIONS[backend], *(["random"] if may_be_random else [])]
    if interpolation is not None and interpolation not in offered:
        raise ValueError(f"backend {backend} interpolates by {', '.join(offered)}; got {interpolation!r}")


def draw_interpolation(rng: SampleRng, interpolation: str | None) -> str | None:
    """Return the interpolation for one image: of ``random`` the one that is drawn."""
    if interpolation != "random":
        return interpolation
    return RANDOM_INTERPOLATIONS[int(rng.integers(0, len(RANDOM_INTERPOLATIONS)))]
