# SPDX-License-Identifier: Apache-2.0
"""Image operations as pure functions on arrays: no randomness, no settings, no configuration."""

from __future__ import annotations

import io
import os
import stat

import cv2
import numpy as np
from PIL import Image, ImageEnhance

from ppcls.utils.errors import DataError

IMAGE_STARTS = (b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM", b"RIFF", b"II*", b"MM\x00*")
"""The first bytes of JPEG, PNG, GIF, BMP, WebP and TIFF files."""

MAX_PIXELS = 89_478_485
"""Largest image that is decoded: 256 MiB of RGB, the size from which Pillow speaks of a decompression bomb."""

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


def decode_image(source: bytes | str | os.PathLike, name: str | None = None) -> np.ndarray:
    """Return an encoded image as uint8 [H, W, 3] in RGB, the way a viewer shows it.

    The one decoder of training, evaluation and inference. EXIF orientation is applied, 16 bits
    become 8, grey and palette become RGB, CMYK is converted, transparency is dropped, and of an
    animation the first frame is taken.

    Args:
        source: the file's bytes, or its path.
        name: what messages call the image; a path names itself.

    Raises:
        DataError: missing, empty, cut off, not an image, or larger than ``MAX_PIXELS``; the size is
            taken from the header, before anything is decoded.
    """
    if isinstance(source, (str, os.PathLike)):
        name = name or os.fspath(source)
        source = read_file(source)
    name = name or "image"
    if len(source) == 0:
        raise DataError(f"{name}: the file is empty")
    width, height = _header_size(source, name)
    if width * height > MAX_PIXELS:
        raise DataError(f"{name}: {width} x {height} pixels is more than the {MAX_PIXELS} that are decoded; shrink it")
    try:
        image = cv2.imdecode(np.frombuffer(source, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise DataError(f"{name}: cannot be decoded ({error.err})") from error
    if image is None:
        raise DataError(f"{name}: cannot be decoded; the file is damaged, cut off, or of a kind that OpenCV lacks")
    return image


def read_file(path: str | os.PathLike) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        DataError: it is missing, unreadable, or a pipe, device or directory, which would hang or fail.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise DataError(f"{os.fspath(path)}: not a regular file")
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{os.fspath(path)}: cannot be read ({reason})") from error


def _header_size(data: bytes, name: str) -> tuple[int, int]:
    """Return (width, height) as the file's header states them; Pillow reads no pixels here."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{name}: more than the {MAX_PIXELS} pixels that are decoded; shrink it") from error
    except (OSError, ValueError, SyntaxError, OverflowError) as error:
        if bytes(data[:4]).startswith(IMAGE_STARTS):
            raise DataError(f"{name}: damaged or cut off, its header cannot be read") from error
        raise DataError(f"{name}: not an image; the file starts with {bytes(data[:8])!r}") from error


def resize(image: np.ndarray, height: int, width: int, interpolation: str | None, backend: str) -> np.ndarray:
    """Return the image [H, W, C] scaled to [height, width, C].

    Args:
        image: uint8 (any dtype with ``cv2``).
        height: in pixels.
        width: in pixels.
        interpolation: a key of ``INTERPOLATIONS[backend]``; None means bilinear.
        backend: ``cv2`` samples the original grid; ``pil`` widens its kernel when shrinking (antialiasing).
    """
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


def normalize(image: np.ndarray, scale: np.float32, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return ``(image * scale - mean) / std``, every step in float32; mean and std broadcast."""
    return (image.astype(np.float32) * scale - mean) / std


def pad(image: np.ndarray, width: int, mode: str, fill: int) -> np.ndarray:
    """Return the image with a border of ``width`` pixels; ``mode`` is a key of ``BORDERS``, of which one fills."""
    return cv2.copyMakeBorder(image, width, width, width, width, BORDERS[mode], value=(fill, fill, fill))


def change_brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Return uint8 RGB ``image * factor``, cut off at 255; 0 is black, 1 the image itself."""
    return np.asarray(ImageEnhance.Brightness(Image.fromarray(image)).enhance(factor))


def change_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Return uint8 RGB between its mean grey (0) and itself (1), or beyond itself (above 1)."""
    return np.asarray(ImageEnhance.Contrast(Image.fromarray(image)).enhance(factor))


def change_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Return uint8 RGB between its grey image (0) and itself (1), or beyond itself (above 1)."""
    return np.asarray(ImageEnhance.Color(Image.fromarray(image)).enhance(factor))


def turn_hue(image: np.ndarray, turn: float) -> np.ndarray:
    """Return uint8 RGB with every hue moved by ``turn``, -0.5..0.5, of the colour circle, in steps of 1/256 of it."""
    hue, saturation, value = Image.fromarray(image).convert("HSV").split()
    turned = np.asarray(hue) + np.uint8(int(turn * 255) % 256)
    return np.asarray(Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB"))


COLOR_CHANGES = {
    "brightness": change_brightness,
    "contrast": change_contrast,
    "saturation": change_saturation,
    "hue": turn_hue,
}
"""What a colour operation's name does to an image, by a factor."""
