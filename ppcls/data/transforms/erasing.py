# SPDX-License-Identifier: Apache-2.0
"""Parts of an image taken out: one rectangle, squares, the tiles of a grid, or bars."""

from __future__ import annotations

import math
from typing import Annotated, Literal, NamedTuple

import numpy as np

from ppcls.config.registry import TRANSFORMS, Count, Share, Within
from ppcls.data.rng import SampleRng
from ppcls.data.transforms.checks import check_share
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
        _check_channels_last("RandomErasing", image)
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
        _check_channels_last("Cutout", image)
        if self.fill_value is None and image.dtype != np.uint8:
            raise ValueError("Cutout draws colours within 0..255; put it before NormalizeImage, or write fill_value")
        image = image.copy()
        for (row, column), colour in zip(params.middles, params.colours):
            top, left = row - self.length // 2, column - self.length // 2
            hole = image[max(top, 0) : max(top + self.length, 0), max(left, 0) : max(left + self.length, 0), :3]
            hole[...] = _colour("Cutout: fill_value", colour, image.dtype)
        return image


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
        _check_channels_last("HideAndSeek", image)
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
        _check_channels_last("GridMask", image)
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


def _coins(rng: SampleRng, num: int) -> np.ndarray:
    """Return bool [num], each true with probability 0.5, at one draw for 32 of them."""
    words = np.array([int(rng.integers(0, 2**32)) for _ in range(-(-num // 32))], np.uint64)
    return ((words[:, None] >> np.arange(32, dtype=np.uint64)) & np.uint64(1)).astype(bool).ravel()[:num]


def _check_channels_last(name: str, image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] not in (3, 4):
        raise ValueError(f"{name} needs images [H, W, C], this is {list(image.shape)}; put it before ToCHWImage")
