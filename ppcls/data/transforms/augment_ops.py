# SPDX-License-Identifier: Apache-2.0
"""The operations that augmentation policies choose from, by name, as pure functions on uint8 RGB images.

Pixels are those of Pillow, with which the published policies were searched and trained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from ppcls.data.transforms import functional

Fill = tuple[int, int, int]

LEVELS = np.arange(256)


class Step(NamedTuple):
    """One operation as it was drawn for one image."""

    name: str
    argument: Any = None
    interpolation: str = "nearest"


def apply_steps(image: np.ndarray, steps: Sequence[Step], fill: Fill) -> np.ndarray:
    """Return the image after all steps, in their order; ``fill`` is the colour where an operation has no pixel.

    Raises:
        ValueError: the image is not uint8 [H, W, 3].
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"augmentation policies need uint8 images [H, W, 3], this is {image.dtype} {list(image.shape)}; "
            "put them before NormalizeImage"
        )
    for step in steps:
        image = OPERATIONS[step.name](image, step.argument, fill, step.interpolation)
    return image


def affine(image: np.ndarray, matrix: tuple[float, ...], fill: Fill, interpolation: str) -> np.ndarray:
    """Return the image whose pixel (x, y) is taken from (a x + b y + c, d x + e y + f), counted at pixel centres.

    Args:
        image: uint8 [H, W, 3].
        matrix: a, b, c, d, e, f.
        fill: colour of what comes from outside.
        interpolation: ``nearest``, ``bilinear`` or ``bicubic``.
    """
    pillow = Image.fromarray(image)
    method = functional.INTERPOLATIONS["pil"][interpolation]
    return np.asarray(pillow.transform(pillow.size, Image.Transform.AFFINE, matrix, method, fillcolor=fill))


def shear_x(image: np.ndarray, factor: float, fill: Fill, interpolation: str) -> np.ndarray:
    """Return the image with each row moved to the left by ``factor`` times its number."""
    return affine(image, (1, factor, 0, 0, 1, 0), fill, interpolation)


def shear_y(image: np.ndarray, factor: float, fill: Fill, interpolation: str) -> np.ndarray:
    """Return the image with each column moved up by ``factor`` times its number."""
    return affine(image, (1, 0, 0, factor, 1, 0), fill, interpolation)


def translate_x(image: np.ndarray, share: float, fill: Fill, interpolation: str) -> np.ndarray:
    """Return the image moved to the left by a share of its width."""
    return translate_x_pixels(image, share * image.shape[1], fill, interpolation)


def translate_y(image: np.ndarray, share: float, fill: Fill, interpolation: str) -> np.ndarray:
    """Return the image moved up by a share of its height."""
    return translate_y_pixels(image, share * image.shape[0], fill, interpolation)


def translate_x_pixels(image: np.ndarray, pixels: float, fill: Fill, interpolation: str) -> np.ndarray:
    """Return the image moved to the left."""
    return affine(image, (1, 0, pixels, 0, 1, 0), fill, interpolation)


def translate_y_pixels(image: np.ndarray, pixels: float, fill: Fill, interpolation: str) -> np.ndarray:
    """Return the image moved up."""
    return affine(image, (1, 0, 0, 0, 1, pixels), fill, interpolation)


def rotate(image: np.ndarray, degrees: float, fill: Fill, interpolation: str) -> np.ndarray:
    """Return the image turned counterclockwise about its middle, in its old size."""
    method = functional.INTERPOLATIONS["pil"][interpolation]
    return np.asarray(Image.fromarray(image).rotate(degrees, method, fillcolor=fill))


def cutout(image: np.ndarray, hole: tuple[int, int, int, int]) -> np.ndarray:
    """Return the image with a square hole, given by its middle's row and column, half its side, and its grey."""
    row, column, half, grey = hole
    image = image.copy()
    image[max(row - half, 0) : row + half, max(column - half, 0) : column + half] = grey
    return image


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Return the image between a smoothed one (0) and itself (1), or beyond itself (above 1)."""
    smooth = cv2.filter2D(image, -1, _SMOOTHING)
    # Pillow smooths only pixels that have all their neighbours.
    smooth[[0, -1]] = image[[0, -1]]
    smooth[:, [0, -1]] = image[:, [0, -1]]
    return np.asarray(Image.blend(Image.fromarray(smooth), Image.fromarray(image), factor))


def auto_contrast(image: np.ndarray, argument: None) -> np.ndarray:
    """Return the image with each channel stretched to 0..255."""
    return _map_channels(image, _stretched_levels)


def equalize(image: np.ndarray, argument: None) -> np.ndarray:
    """Return the image with each channel's levels spread so that all are about as frequent."""
    return _map_channels(image, _equalized_levels)


def invert(image: np.ndarray, argument: None) -> np.ndarray:
    """Return the negative."""
    return cv2.bitwise_not(image)


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
    """Return the image with only the highest ``bits`` of each value; 0 is black, 8 the image itself."""
    return cv2.LUT(image, (LEVELS & -(1 << 8 - min(max(bits, 0), 8))).astype(np.uint8))


def solarize(image: np.ndarray, threshold: float) -> np.ndarray:
    """Return the image with all values from ``threshold`` on inverted."""
    return cv2.LUT(image, np.where(threshold > LEVELS, LEVELS, 255 - LEVELS).astype(np.uint8))


def solarize_add(image: np.ndarray, added: int) -> np.ndarray:
    """Return the image with ``added`` to all values below 128, cut off at 255."""
    return cv2.LUT(image, np.where(LEVELS < 128, np.minimum(LEVELS + added, 255), LEVELS).astype(np.uint8))


def _map_channels(image: np.ndarray, levels: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Each channel by a table of its own, made from how often it has each level, int64 [256]."""
    counts = np.reshape(Image.fromarray(image).histogram(), (3, 256))
    return cv2.LUT(image, np.stack([levels(channel) for channel in counts], axis=1)[None])


def _stretched_levels(counts: np.ndarray) -> np.ndarray:
    present = np.flatnonzero(counts)
    low, high = int(present[0]), int(present[-1])
    if low == high:
        return LEVELS.astype(np.uint8)
    scale = 255.0 / (high - low)
    return np.clip(LEVELS * scale + -low * scale, 0, 255).astype(np.uint8)


def _equalized_levels(counts: np.ndarray) -> np.ndarray:
    present = counts[counts > 0]
    step = int(present.sum() - present[-1]) // 255
    if len(present) <= 1 or step == 0:
        return LEVELS.astype(np.uint8)
    below = np.cumsum(counts) - counts
    return np.minimum((step // 2 + below) // step, 255).astype(np.uint8)


def _without_border(function: Callable[[np.ndarray, Any], np.ndarray]) -> Operation:
    def operation(image: np.ndarray, argument: Any, fill: Fill, interpolation: str) -> np.ndarray:
        return function(image, argument)

    return operation


_SMOOTHING = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13

Operation = Callable[[np.ndarray, Any, Fill, str], np.ndarray]

OPERATIONS: dict[str, Operation] = {
    "shear_x": shear_x,
    "shear_y": shear_y,
    "translate_x": translate_x,
    "translate_y": translate_y,
    "translate_x_pixels": translate_x_pixels,
    "translate_y_pixels": translate_y_pixels,
    "rotate": rotate,
    "cutout": _without_border(cutout),
    "brightness": _without_border(functional.change_brightness),
    "contrast": _without_border(functional.change_contrast),
    "color": _without_border(functional.change_saturation),
    "sharpness": _without_border(sharpness),
    "auto_contrast": _without_border(auto_contrast),
    "equalize": _without_border(equalize),
    "invert": _without_border(invert),
    "posterize": _without_border(posterize),
    "solarize": _without_border(solarize),
    "solarize_add": _without_border(solarize_add),
}
"""By name, what an operation does to an image with an argument, a fill colour and an interpolation."""
