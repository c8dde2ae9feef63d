# SPDX-License-Identifier: Apache-2.0
"""From a file to an image: the one decoder of training, evaluation and inference."""

from __future__ import annotations

import os
import stat

import cv2
import numpy as np

from ppcls.data.transforms.image_header import PNG_IMAGE_CHUNKS, PNG_START, Header, png_chunks, read_header
from ppcls.data.transforms.image_header import image_size as image_size
from ppcls.utils.errors import DataError

REDUCTIONS = {1: 0, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4}
REDUCTIONS[8] = cv2.IMREAD_REDUCED_GRAYSCALE_8
"""How many times smaller a JPEG can be decoded, and OpenCV's flag for it.

Its flags for reduced colour are these with a bit that asks for BGR."""

MAX_FILE_BYTES = 2 << 30
"""Largest file that is read at once; no image that is decoded takes half of it."""
_PART = 64 << 20
_OPEN = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
"""Without waiting: opening a pipe that nobody writes to would hang."""

# A file that cannot be decoded is told of in a DataError; OpenCV would print several lines more for each.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def decode_image(source: bytes | str | os.PathLike, name: str | None = None, reduce: int = 1) -> np.ndarray:
    """Return an encoded image as uint8 [H, W, 3] in RGB, the way a viewer shows it.

    The one decoder of training, evaluation and inference. EXIF orientation is applied, 16 bits
    become 8, grey and palette become RGB, CMYK is converted, transparency is dropped, and of an
    animation or of several pages the first is taken; of a PNG, the image that stands for the animation.

    Args:
        source: the file's bytes, or its path.
        name: what messages call the image; a path names itself.
        reduce: 1, 2, 4 or 8: a JPEG is decoded at 1/reduce of its size, each side rounded up, which
            is faster; other kinds come at their full size all the same.

    Raises:
        DataError: missing, empty, cut off, not an image, or larger than ``MAX_PIXELS``; the size is
            taken from the header, before anything is decoded.
    """
    if isinstance(source, (str, os.PathLike)):
        name = name or os.fspath(source)
        source = read_file(source)
    name = name or "image"
    header = read_header(source, name)
    reduce = reduce if header.kind == "JPEG" else 1
    image = _pixels(_image_alone(source, header), header.kind, reduce, name)
    height, width, orientation = header[:3]
    if header.kind == "TIFF":
        # libtiff has turned it already.
        height, width = (width, height) if orientation > 4 else (height, width)
        orientation = 1
    if image.shape[:2] != (-(-height // reduce), -(-width // reduce)):
        raise DataError(f"{name}: damaged, its header says {width} x {height}, its image is of another size")
    return image if orientation == 1 else _turned(image, orientation)


def _image_alone(data: bytes, header: Header) -> bytes:
    """Return a file without what OpenCV would make of the things that stand beside its image."""
    if header.alpha_at:
        # Called a channel without a meaning, it is left out; libtiff would blend the colours with black.
        return data[: header.alpha_at] + bytes(2) + data[header.alpha_at + 2 :]
    if header.has_more:
        # OpenCV 5.0 can crash on the frames of a damaged animation, and warns on stderr of profiles.
        chunks = [data[start:end] for kind, start, end in png_chunks(data) if kind in PNG_IMAGE_CHUNKS]
        return b"".join([PNG_START, *chunks])
    return data


def _pixels(data: bytes, kind: str, reduce: int, name: str) -> np.ndarray:
    """Return uint8 RGB as the file stores it, turned only where it is a TIFF."""
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | REDUCTIONS[reduce]
    if kind == "AVIF":
        # OpenCV 5.0 gives one with transparency in BGR whatever it is asked for.
        flags = cv2.IMREAD_COLOR_BGR
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise DataError(f"{name}: cannot be decoded ({error.err})") from error
    if image is None:
        raise DataError(f"{name}: cannot be decoded; the file is damaged, cut off, or of a kind that OpenCV lacks")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if kind == "AVIF" else image


def _turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """Return the image with its row 0 and column 0 where EXIF says they belong (EXIF 2.32, tag 0x0112)."""
    if orientation > 4:
        image = cv2.transpose(image)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return image if flip is None else cv2.flip(image, flip)


def read_file(path: str | os.PathLike) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        DataError: it is missing, unreadable, larger than ``MAX_FILE_BYTES``, or a pipe, device or directory, which
            would hang or fail.
    """
    try:
        descriptor = os.open(path, _OPEN)
        try:
            return _bytes_of(descriptor, path)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{os.fspath(path)}: cannot be read ({reason})") from error


def _bytes_of(descriptor: int, path: str | os.PathLike) -> bytes:
    """Return all of an open file; a file object of Python's takes as long as decoding a tiny image."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{os.fspath(path)}: not a regular file")
    if status.st_size > MAX_FILE_BYTES:
        raise DataError(
            f"{os.fspath(path)}: {status.st_size} bytes, more than the {MAX_FILE_BYTES} that are read at once"
        )
    data = os.read(descriptor, status.st_size + 1)
    if len(data) != status.st_size:  # it has changed since, or its file system gives a part at a time
        while more := os.read(descriptor, _PART):
            data += more
    return data
