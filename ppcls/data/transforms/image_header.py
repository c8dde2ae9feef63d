# SPDX-License-Identifier: Apache-2.0
"""What an image file says of itself before anything is decoded: its kind, its size, and which way is up."""

from __future__ import annotations

import io
import re
import struct
import warnings
from functools import cache
from typing import NamedTuple

from PIL import Image
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from ppcls.utils.errors import DataError

MAX_PIXELS = 89_478_485
"""Largest image that is decoded: 256 MiB of RGB, the size from which Pillow speaks of a decompression bomb."""

MAX_SCANS = 64
"""How many passes over the image a progressive JPEG may take; encoders use about ten, and each costs full time."""

MAX_SEGMENTS = 10_000
"""How many segments a JPEG may have before its image; a file of nothing else would be walked for seconds."""

IMAGE_STARTS = (b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM", b"RIFF", b"II*", b"MM\x00*")
"""The first bytes of JPEG, PNG, GIF, BMP, WebP and TIFF files."""

PILLOW_KINDS = ("GIF", "BMP", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM")
"""The kinds, by Pillow's names, whose headers Pillow reads; JPEG and PNG are read here."""

JPEG_START = b"\xff\xd8\xff"
PNG_START = b"\x89PNG\r\n\x1a\n"
EXIF_START = b"Exif\x00\x00"
ORIENTATION_TAG = 0x0112

# Any number of fill bytes, then a marker that is followed by a length: not a stuffed zero, TEM, RST or SOI.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
_START_OF_SCAN, _END_OF_IMAGE, _APP1 = 0xDA, 0xD9, 0xE1
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}

# MAX_PIXELS refuses these images with an error of one line; Pillow's warning would stand beside it.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class Header(NamedTuple):
    """What a file's header states.

    Attributes:
        height: in pixels, of the rows as they are stored.
        width: in pixels, as stored.
        orientation: 1 to 8 as EXIF counts them: how the stored rows and columns have to be turned.
        kind: the file format, by Pillow's name.
    """

    height: int
    width: int
    orientation: int
    kind: str


def image_size(data: bytes, name: str = "image") -> tuple[int, int]:
    """Return (height, width) that the decoded image will have, from the file's header alone.

    Args:
        data: the file's bytes.
        name: what messages call the image.

    Raises:
        DataError: empty, not an image, a damaged header, or larger than ``MAX_PIXELS``.
    """
    header = read_header(data, name)
    return (header.width, header.height) if header.orientation > 4 else (header.height, header.width)


def read_header(data: bytes, name: str = "image") -> Header:
    """Return what the header states; a JPEG's takes a few microseconds.

    Args:
        data: the file's bytes.
        name: what messages call the image.

    Raises:
        DataError: empty, not an image, a damaged header, or larger than ``MAX_PIXELS``.
    """
    start = bytes(data[:8])
    if not start:
        raise DataError(f"{name}: the file is empty")
    try:
        if start.startswith(JPEG_START):
            header = _jpeg_header(data)
        elif start == PNG_START:
            header = _png_header(data)
        else:
            header = _pillow_header(data)
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: more than the {MAX_PIXELS} pixels that are decoded; shrink it") from error
    except (OSError, ValueError, SyntaxError, OverflowError, LookupError, struct.error) as error:
        if start.startswith(IMAGE_STARTS):
            raise DataError(f"{name}: damaged or cut off, its header cannot be read") from error
        raise DataError(f"{name}: not an image; the file starts with {start!r}") from error
    if header.width * header.height > MAX_PIXELS:
        raise DataError(
            f"{name}: {header.width} x {header.height} pixels is more than the {MAX_PIXELS} that are decoded; shrink it"
        )
    return header


def _jpeg_header(data: bytes) -> Header:
    """Walk the segments of a JPEG up to the one that states its size (ITU-T T.81, annex B)."""
    position, orientation = 2, 1
    for _ in range(MAX_SEGMENTS):
        found = _JPEG_MARKER.search(data, position)
        if found is None:
            break
        position = found.end()
        marker = data[position - 1]
        if marker in _START_OF_FRAME:
            height, width = struct.unpack_from(">HH", data, position + 3)
            if height == 0 or width == 0:
                break
            if marker in _PROGRESSIVE and bytes(data).count(b"\xff\xda") > MAX_SCANS:
                break
            return Header(height, width, orientation, "JPEG")
        if marker in (_START_OF_SCAN, _END_OF_IMAGE):
            break
        length = data[position] << 8 | data[position + 1]
        if marker == _APP1 and orientation == 1 and data[position + 2 : position + 8] == EXIF_START:
            orientation = exif_orientation(data[position + 8 : position + length])
        position += length
    raise ValueError("a JPEG without an image")


def _png_header(data: bytes) -> Header:
    """Walk the chunks of a PNG to its end: EXIF may come last, and a file without an end is cut off."""
    kind, width, height = struct.unpack_from(">4sII", data, 12)
    if kind != b"IHDR" or height == 0 or width == 0:
        raise ValueError("a PNG without a size")
    if width * height > MAX_PIXELS:
        return Header(height, width, 1, "PNG")
    position, orientation = 8, 1
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"eXIf":
            orientation = exif_orientation(data[position + 8 : position + 8 + length])
        position += 12 + length
    if position > len(data):
        raise ValueError("cut off")
    return Header(height, width, orientation, "PNG")


def _pillow_header(data: bytes) -> Header:
    """Let Pillow read a header of any other kind; it reads no pixels here."""
    with Image.open(io.BytesIO(data), formats=_installed_kinds()) as image:
        width, height = image.size
        if not isinstance(image, TiffImageFile):
            orientation = exif_orientation(image.info.get("exif", b"").removeprefix(EXIF_START))
            return Header(height, width, orientation, str(image.format))
        orientation = image.tag_v2.get(ORIENTATION_TAG, 1)
        if orientation not in range(1, 9):
            orientation = 1
        # Newer Pillows give the size after turning.
        height, width = image.tag_v2[IMAGELENGTH], image.tag_v2[IMAGEWIDTH]
        return Header(height, width, orientation, "TIFF")


@cache
def _installed_kinds() -> tuple[str, ...]:
    """Those of ``PILLOW_KINDS`` that this Pillow was built with."""
    Image.init()
    return tuple(kind for kind in PILLOW_KINDS if kind in Image.OPEN)


def exif_orientation(exif: bytes) -> int:
    """Return the orientation, 1 to 8, that a block of EXIF states; 1 where it states none.

    Args:
        exif: from its byte order, ``II`` or ``MM``, on.
    """
    order = {b"II": "<", b"MM": ">"}.get(bytes(exif[:2]))
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", exif, 4)
        (num_entries,) = struct.unpack_from(f"{order}H", exif, directory)
        for entry in range(directory + 2, directory + 2 + 12 * num_entries, 12):
            tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
            if tag == ORIENTATION_TAG:
                (stated,) = struct.unpack_from(f"{order}{'I' if kind == 4 else 'H'}", exif, entry + 8)
                return stated if 1 <= stated <= 8 else 1
    except struct.error:
        return 1
    return 1
