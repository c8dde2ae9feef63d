# SPDX-License-Identifier: Apache-2.0
"""Parts of an image filled: one rectangle, or squares."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np

from ppcls.config.registry import TRANSFORMS, Count, Share
from ppcls.data.rng import SampleRng
from ppcls.data.transforms.checks import check_channels_last, check_share
from ppcls.data.transforms.tensor import IMAGENET_MEAN, IMAGENET_STD
from ppcls.data.transforms.transform import Transform


class ErasedArea(NamedTuple):
    """The rectangle that `RandomErasing` fills, in pixels, and the seed of the noise in it."""

    top: int
    left: int
    height: int
    width: int
    seed: int | None = None


@TRANSFORMS.register
class RandomErasing(Transform):
    """Fill a random rectangle (Zhong et al., "Random erasing data augmentation", AAAI 2020).

    Works behind `NormalizeImage`, where the noise has the spread of the image, and before it: there the noise is
    what ImageNet's mean and deviation turn into the same, as far as a pixel can have it.

    Args:
        EPSILON: share of the images that are changed.
        sl: smallest area, as a fraction of the image.
        sh: largest area.
        r1: smallest height / width; the largest is its inverse.
        mean: red, green and blue of the filling with ``const``, as pixels are at this place.
        attempt: how often a rectangle that does not fit in the image is drawn again, before the image is left alone.
        use_log_aspect: draw the logarithm of the ratio uniformly, so that wide and tall are as likely;
            otherwise the ratio itself.
        mode: ``const`` fills with ``mean``, ``rand`` with one random colour, ``pixel`` with noise.

    Raises:
        ValueError: a share or area not within 0..1, ends that are swapped, or a ratio not within 0..1; when called,
            an image that is not [H, W, C] of 3 or 4 channels, or a ``mean`` that no pixel can have.

    YAML::

        - RandomErasing: {EPSILON: 0.25, sl: 0.02, sh: 1.0/3.0, r1: 0.3, attempt: 10, use_log_aspect: True, mode: pixel}
    """

    def __init__(
        self,
        EPSILON: Share = 0.5,  # noqa: N803
        sl: Share = 0.02,
        sh: Share = 0.4,
        r1: float = 0.3,
        mean: tuple[float, float, float] = (0.0, 0.0, 0.0),
        attempt: Count = 100,
        use_log_aspect: bool = False,
        mode: Literal["const", "rand", "pixel"] = "const",
    ) -> None:
        check_share("EPSILON", EPSILON)
        if not 0 <= sl <= sh <= 1:
            raise ValueError(f"sl and sh must be 0 <= sl <= sh <= 1; got sl={sl} and sh={sh}")
        if not 0 < r1 <= 1:
            raise ValueError(f"r1 must be above 0 and at most 1; got {r1}")
        if len(mean) != 3:
            raise ValueError(f"mean must have one number for each of 3 channels; got {list(mean)}")
        if attempt < 1:
            raise ValueError(f"attempt must be at least 1; got {attempt}")
        if mode not in ("const", "rand", "pixel"):
            raise ValueError(f"mode must be 'const', 'rand' or 'pixel'; got {mode!r}")
        self.EPSILON = EPSILON
        self.sl = sl
        self.sh = sh
        self.r1 = r1
        self.mean = mean
        self.attempt = attempt
        self.use_log_aspect = use_log_aspect
        self.mode = mode

    def draw(self, rng: SampleRng, image: np.ndarray) -> ErasedArea | None:
        """Return a rectangle inside the image; None for an image that stays as it is."""
        if rng.random() >= self.EPSILON:
            return None
        height, width = image.shape[:2]
        for _ in range(self.attempt):
            area = rng.uniform(self.sl, self.sh) * height * width
            if self.use_log_aspect:
                ratio = math.exp(rng.uniform(math.log(self.r1), -math.log(self.r1)))
            else:
                ratio = rng.uniform(self.r1, 1 / self.r1)
            rows = int(round(math.sqrt(area * ratio)))
            columns = int(round(math.sqrt(area / ratio)))
            if rows < height and columns < width:
                top = int(rng.integers(0, height - rows + 1))
                left = int(rng.integers(0, width - columns + 1))
                seed = None if self.mode == "const" else int(rng.integers(0, 2**53))
                return ErasedArea(top, left, rows, columns, seed)
        return None

    def apply(self, image: np.ndarray, params: ErasedArea | None) -> np.ndarray:
        """Return a copy with the rectangle filled."""
        if params is None:
            return image
        check_channels_last("RandomErasing", image)
        image = image.copy()
        area = image[params.top : params.top + params.height, params.left : params.left + params.width, :3]
        if params.seed is None:
            area[...] = _colour("RandomErasing: mean", self.mean, image.dtype)
        else:
            shape = area.shape if self.mode == "pixel" else (1, 1, 3)
            area[...] = _as_pixels(normal_noise(params.seed, shape), image.dtype)
        return image


class Holes(NamedTuple):
    """Middles of the squares that `Cutout` fills, as (row, column), and their colours."""

    middles: list[tuple[int, int]]
    colours: list[tuple[float, float, float]]


@TRANSFORMS.register
class Cutout(Transform):
    """Fill squares whose middles lie anywhere in the image (DeVries and Taylor, 2017).

    Args:
        n_holes: number of squares.
        length: their side in pixels; at the edge of the image less of them is seen.
        fill_value: red, green and blue, as pixels are at this place; null (or ``none``) draws a colour for each
            square, on images that are not normalized yet.

    Raises:
        ValueError: no squares, or a side below 1; when called, an image that is not [H, W, C] of 3 or 4 channels, or
            a colour that no pixel can have.

    YAML::

        - Cutout: {n_holes: 1, length: 112}
    """

    def __init__(
        self,
        n_holes: Count = 1,
        length: Count = 112,
        fill_value: tuple[float, float, float] | Literal["none"] | None = (0.0, 0.0, 0.0),
    ) -> None:
        if n_holes < 1:
            raise ValueError(f"n_holes must be at least 1; got {n_holes}")
        if length < 1:
            raise ValueError(f"length must be at least 1; got {length}")
        if fill_value not in (None, "none") and len(fill_value) != 3:
            raise ValueError(f"fill_value must be red, green and blue, or null; got {fill_value!r}")
        self.n_holes = n_holes
        self.length = length
        # PaddleClas: with a colour, even the default, every image fails.
        self.fill_value = None if fill_value == "none" else fill_value

    def draw(self, rng: SampleRng, image: np.ndarray) -> Holes:
        """Return where the squares are, and their colours."""
        height, width = image.shape[:2]
        middles, colours = [], []
        for _ in range(self.n_holes):
            middles.append((int(rng.integers(0, height)), int(rng.integers(0, width))))
            if self.fill_value is None:
                colours.append((int(rng.integers(0, 256)), int(rng.integers(0, 256)), int(rng.integers(0, 256))))
            else:
                colours.append(self.fill_value)
        return Holes(middles, colours)

    def apply(self, image: np.ndarray, params: Holes) -> np.ndarray:
        """Return a copy with the squares filled."""
        check_channels_last("Cutout", image)
        if self.fill_value is None and image.dtype != np.uint8:
            raise ValueError("Cutout draws colours within 0..255; put it before NormalizeImage, or write fill_value")
        image = image.copy()
        for (row, column), colour in zip(params.middles, params.colours):
            top, left = row - self.length // 2, column - self.length // 2
            hole = image[max(top, 0) : max(top + self.length, 0), max(left, 0) : max(left + self.length, 0), :3]
            hole[...] = _colour("Cutout: fill_value", colour, image.dtype)
        return image


def normal_noise(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return normally distributed numbers, float32, that follow from the seed under every version of NumPy."""
    num_pairs = -(-math.prod(shape) // 2)
    bits = np.random.Philox(key=seed).random_raw(num_pairs)
    # Box and Muller, 1958: two of them from two uniform numbers, the first of which must not be 0.
    radius = np.sqrt(-2 * np.log(((bits >> 32) + 1) * 2.0**-32))
    angle = (bits & 0xFFFFFFFF) * (2 * np.pi * 2.0**-32)
    numbers = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    return numbers[: math.prod(shape)].astype(np.float32).reshape(shape)


def _as_pixels(noise: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Noise as it is where pixels are normalized; otherwise the pixels that ImageNet's numbers turn into it."""
    if dtype != np.uint8:
        return noise
    # PaddleClas: noise on such an image is rounded to 0 and wraps around below it.
    pixels = (noise * np.float32(IMAGENET_STD) + np.float32(IMAGENET_MEAN)) * 255
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)


def _colour(what: str, colour: tuple[float, float, float], dtype: np.dtype) -> np.ndarray:
    if dtype == np.uint8 and not all(0 <= value <= 255 for value in colour):
        raise ValueError(f"{what} must be within 0..255 on an image that is not normalized; got {list(colour)}")
    return np.round(colour).astype(dtype) if dtype == np.uint8 else np.asarray(colour, dtype)
