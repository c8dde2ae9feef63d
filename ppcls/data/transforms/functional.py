# SPDX-License-Identifier: Apache-2.0
"""Image operations as pure functions on arrays: no randomness, no settings, no configuration."""

from __future__ import annotations

import math

import cv2
import numpy as np
from PIL import Image

from ppcls.data.transforms.decoding import decode_image as decode_image
from ppcls.data.transforms.decoding import read_file as read_file
from ppcls.data.transforms.image_header import MAX_PIXELS
from ppcls.utils.errors import DataError

INTERPOLATIONS = {
    "cv2": {
        "nearest": cv2.INTER_NEAREST,
        "bilinear": cv2.INTER_LINEAR,
        "area": cv2.INTER_AREA,
        "bicubic": cv2.INTER_CUBIC,
        "lanczos": cv2.INTER_LANCZOS4,
    },
    "pil": {
        "nearest": Image.Resampling.NEAREST,
        "bilinear": Image.Resampling.BILINEAR,
        "bicubic": Image.Resampling.BICUBIC,
        "box": Image.Resampling.BOX,
        "lanczos": Image.Resampling.LANCZOS,
        "hamming": Image.Resampling.HAMMING,
    },
}
"""What each resize engine offers, by the names that YAML uses."""

DEFAULT_INTERPOLATION = "bilinear"
"""How either engine scales when YAML names no interpolation."""


BORDERS = {
    "constant": cv2.BORDER_CONSTANT,
    "edge": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT_101,
    "symmetric": cv2.BORDER_REFLECT,
}
"""What may stand beyond an image's edge, by the names that YAML uses."""

_QUARTERS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}
_LUMA = np.array([[19595, 38470, 7471, 32768]], np.float32) / 65536
_LUMA_THRICE = np.repeat(_LUMA, 3, axis=0)
_LEVELS = np.arange(256, dtype=np.float32)


def resize(image: np.ndarray, height: int, width: int, interpolation: str | None, backend: str) -> np.ndarray:
    """Return the image [H, W, C] scaled to [height, width, C].

    Args:
        image: uint8 (any dtype with ``cv2``).
        height: in pixels.
        width: in pixels.
        interpolation: a key of ``INTERPOLATIONS[backend]``; None means bilinear.
        backend: ``cv2`` samples the original grid; ``pil`` widens its kernel when shrinking (antialiasing).

    Raises:
        DataError: that would be more than ``MAX_PIXELS``, as of a long strip whose shorter side is to be a few hundred.
    """
    if height * width > MAX_PIXELS:
        raise DataError(
            f"image: scaled from {image.shape[1]} x {image.shape[0]} to {width} x {height} it would have more than "
            f"{MAX_PIXELS} pixels; leave it out, or crop it"
        )
    method = INTERPOLATIONS[backend][interpolation or DEFAULT_INTERPOLATION]
    if backend == "cv2":
        return cv2.resize(image, (width, height), interpolation=method)
    return np.asarray(Image.fromarray(image).resize((width, height), method))


def crop(image: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """Return a view of ``height`` rows and ``width`` columns from (``top``, ``left``) on."""
    return image[top : top + height, left : left + width]


def flip(image: np.ndarray, code: int) -> np.ndarray:
    """Return the image mirrored: ``code`` 1 left to right, 0 top to bottom, -1 both."""
    return cv2.flip(image, code)


def rotate_quarters(image: np.ndarray, quarters: int) -> np.ndarray:
    """Return the image turned counter-clockwise by that many times 90 degrees, 0..3."""
    return cv2.rotate(image, _QUARTERS[quarters]) if quarters else image


def rotate(
    image: np.ndarray,
    degrees: float,
    interpolation: str,
    expand: bool,
    center: tuple[float, float] | None,
    fill: tuple[float, float, float],
) -> np.ndarray:
    """Return the image turned counter-clockwise.

    Args:
        image: [H, W, 3].
        degrees: the angle; negative for clockwise.
        interpolation: a key of ``INTERPOLATIONS["cv2"]``.
        expand: whether the image grows so that all of it stays visible.
        center: the point (x, y) that stays in place, in pixels from the upper left corner of the first pixel; None
            for the middle.
        fill: the colour of what lies outside.
    """
    height, width = image.shape[:2]
    x, y = center or (width / 2, height / 2)
    # OpenCV counts from the middle of the first pixel.
    # PaddleClas: from there as well, which moves its images by up to a pixel.
    matrix = cv2.getRotationMatrix2D((x - 0.5, y - 0.5), degrees, 1.0)
    if expand:
        # Angles of whole quarters leave a remainder of 1e-14, which must not count as a pixel.
        cosine, sine = (abs(round(part(math.radians(degrees)), 12)) for part in (math.cos, math.sin))
        old_size = np.array([width, height])
        extent = np.array([width * cosine + height * sine, width * sine + height * cosine])
        new_size = np.ceil((old_size + extent) / 2) - np.floor((old_size - extent) / 2)
        matrix[:, 2] += (new_size - old_size) / 2
        width, height = map(int, new_size)
    flags = INTERPOLATIONS["cv2"][interpolation]
    return cv2.warpAffine(image, matrix, (width, height), flags=flags, borderValue=fill)


def normalize(image: np.ndarray, scale: np.float32, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return ``(image * scale - mean) / std``, every step in float32; mean and std broadcast."""
    return (image.astype(np.float32) * scale - mean) / std


def pad(image: np.ndarray, width: int, mode: str, fill: int) -> np.ndarray:
    """Return the image with a border of ``width`` pixels; ``mode`` is a key of ``BORDERS``, of which one fills."""
    return pad_sides(image, (width, width, width, width), mode, (fill, fill, fill))


def pad_sides(
    image: np.ndarray, sides: tuple[int, int, int, int], mode: str, fill: tuple[float, float, float]
) -> np.ndarray:
    """Return the image with a border of its own width, (left, top, right, bottom), on each side; otherwise as `pad`."""
    left, top, right, bottom = sides
    return cv2.copyMakeBorder(image, top, bottom, left, right, BORDERS[mode], value=fill)


def grey(image: np.ndarray) -> np.ndarray:
    """Return the luma (Rec. 601) of uint8 RGB as uint8 [H, W], to the bit as Pillow rounds it."""
    # Pillow counts in 65536ths; all of these products and sums are exact in float32.
    return cv2.transform(image.astype(np.float32), _LUMA).astype(np.uint8)


def change_brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Return uint8 RGB ``image * factor``, cut off at 255; 0 is black, 1 the image itself."""
    return cv2.LUT(image, _blended_levels(0, factor))


def change_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Return uint8 RGB between its mean grey (0) and itself (1), or beyond itself (above 1)."""
    mean = cv2.sumElems(grey(image))[0] / (image.shape[0] * image.shape[1])
    return cv2.LUT(image, _blended_levels(int(mean + 0.5), factor))


def change_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Return uint8 RGB between its grey image (0) and itself (1), or beyond itself (above 1)."""
    blend = image.astype(np.float32)
    greys = cv2.transform(blend, _LUMA_THRICE)
    np.floor(greys, out=greys)
    # In three steps, as Pillow rounds after each of them.
    blend -= greys
    blend *= np.float32(factor)
    blend += greys
    return np.clip(blend, 0, 255, out=blend).astype(np.uint8)


def _blended_levels(base: int, factor: float) -> np.ndarray:
    """What each level 0..255 becomes between ``base`` (factor 0) and itself (factor 1), as `ImageEnhance` rounds it."""
    blend = (_LEVELS - np.float32(base)) * np.float32(factor) + np.float32(base)
    return blend.clip(0, 255).astype(np.uint8)


def turn_hue(image: np.ndarray, turn: float) -> np.ndarray:
    """Return uint8 RGB with every hue moved by ``turn``, -0.5..0.5, of the colour circle, in steps of 1/256 of it."""
    hsv = np.array(Image.fromarray(image).convert("HSV"))
    hsv[:, :, 0] += np.uint8(int(turn * 255) % 256)
    height, width = image.shape[:2]
    return np.asarray(Image.frombuffer("HSV", (width, height), hsv, "raw", "HSV", 0, 1).convert("RGB"))


COLOR_CHANGES = {
    "brightness": change_brightness,
    "contrast": change_contrast,
    "saturation": change_saturation,
    "hue": turn_hue,
}
"""What a colour operation's name does to an image, by a factor."""
