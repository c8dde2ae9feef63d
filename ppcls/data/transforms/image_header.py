# SPDX-License-Identifier: Apache-2.0
"""What an image file says of itself before anything is decoded: its kind, its size, and which way is up."""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from PIL import Image

from ppcls.data.transforms.tiff_tags import Tag, exif_orientation, tiff_tags
from ppcls.utils.errors import DataError

MAX_PIXELS = 89_478_485
"""Largest image that is decoded: 256 MiB of RGB, the size from which Pillow speaks of a decompression bomb."""

MAX_SCANS = 64
"""How many passes over the image a progressive JPEG may take; encoders use about ten, and each costs full time."""

MAX_SEGMENTS = 10_000
"""How many segments a JPEG may have before its image; a file of nothing else would be walked for seconds."""

IMAGE_STARTS = (b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM", b"RIFF", b"II*", b"MM\x00*", b"II+\x00", b"MM\x00+")
"""The first bytes of JPEG, PNG, GIF, BMP, WebP and TIFF files."""

PILLOW_KINDS = ("GIF", "BMP", "AVIF", "JPEG2000", "PPM")
"""The kinds, by Pillow's names, whose headers Pillow reads; the others are read here."""

JPEG_START = b"\xff\xd8\xff"
PNG_START = b"\x89PNG\r\n\x1a\n"
TIFF_STARTS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
PNG_IMAGE_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
EXIF_START = b"Exif\x00\x00"

# Any number of fill bytes, then a marker that is followed by a length: not a stuffed zero, TEM, RST or SOI.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
_START_OF_SCAN, _END_OF_IMAGE, _APP1 = 0xDA, 0xD9, 0xE1
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}

_TIFF_RGB = 2
_NOT_UNSIGNED = {2, 3, 5, 6}  # among the sample formats of a TIFF
_HAS_EXIF = 0x08  # among the flags of a WebP

# What reading a damaged header raises, here and in Pillow.
_DAMAGE = (OSError, EOFError, ValueError, SyntaxError, OverflowError, LookupError, RuntimeError, struct.error)

# MAX_PIXELS refuses these images with an error of one line; Pillow's warning would stand beside it.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class Header(NamedTuple):
    """What a file's header states.

    Attributes:
        height: in pixels, of the rows as they are stored.
        width: in pixels, as stored.
        orientation: 1 to 8 as EXIF counts them: how the stored rows and columns have to be turned.
        kind: the file format, by Pillow's name.
        alpha_at: where a TIFF in RGB states that a further channel is transparency; 0 where none is.
        has_more: a PNG in which there is something besides its image, as text, a profile, or further frames.
    """

    height: int
    width: int
    orientation: int
    kind: str
    alpha_at: int = 0
    has_more: bool = False


class _RefusedError(Exception):
    """A header that is intact, of an image that is not decoded; says why."""


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
        elif start.startswith(TIFF_STARTS):
            header = _tiff_header(data)
        elif start.startswith(b"RIFF") and data[8:12] == b"WEBP":
            header = _webp_header(data)
        else:
            header = _pillow_header(data)
    except _RefusedError as error:
        raise DataError(f"{name}: {error}") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: more than the {MAX_PIXELS} pixels that are decoded; shrink it") from error
    except _DAMAGE as error:
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
                raise _RefusedError(f"a progressive JPEG of more than {MAX_SCANS} scans takes too long; encode it anew")
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
    orientation, has_more = 1, False
    for kind, start, end in png_chunks(data):
        has_more |= kind not in PNG_IMAGE_CHUNKS
        if kind == b"eXIf":
            orientation = exif_orientation(data[start + 8 : end - 4])
    return Header(height, width, orientation, "PNG", has_more=has_more)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind, start and end of each chunk of a PNG up to its last (PNG specification, section 5.3).

    Raises:
        ValueError, struct.error: the file is cut off.
    """
    kind, end = b"", 8
    while kind != b"IEND":
        start = end
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + length + 12
        if end > len(data):
            raise ValueError("cut off")
        yield kind, start, end


def _webp_header(data: bytes) -> Header:
    """Read the size from the first chunk, which has one of three forms, and EXIF (RFC 9649, section 2)."""
    (length,) = struct.unpack_from("<I", data, 4)
    if length + 8 > len(data):
        raise ValueError("cut off")
    form = data[12:16]
    if form == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header(height & 0x3FFF, width & 0x3FFF, 1, "WEBP")
    if form == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Header((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1, 1, "WEBP")
    if form != b"VP8X":
        raise ValueError("a WebP without an image")
    width, height = (int.from_bytes(data[place : place + 3], "little") + 1 for place in (24, 27))
    start = 12
    while data[20] & _HAS_EXIF and start + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, start)
        if kind == b"EXIF":
            exif = bytes(data[start + 8 : start + 8 + length])
            return Header(height, width, exif_orientation(exif.removeprefix(EXIF_START)), "WEBP")
        start += 8 + length + length % 2
    return Header(height, width, 1, "WEBP")


def _tiff_header(data: bytes) -> Header:
    """Read the first page's size (TIFF 6.0, sections 2 and 8), and whether it holds what a picture holds."""
    tags, places = tiff_tags(data)
    (width, *_), (height, *_) = tags[Tag.WIDTH], tags[Tag.HEIGHT]
    if height == 0 or width == 0:
        raise ValueError("a TIFF without a size")
    if max(tags.get(Tag.BITS, (1,))) > 16 or not _NOT_UNSIGNED.isdisjoint(tags.get(Tag.SAMPLE_FORMAT, ())):
        raise _RefusedError("a TIFF of other numbers than up to 16 bits without sign; convert it to 8 bits")
    tile_width, tile_height = tags.get(Tag.TILE_WIDTH, (0,))[0], tags.get(Tag.TILE_HEIGHT, (0,))[0]
    if tile_width * tile_height > MAX_PIXELS:
        raise _RefusedError(f"tiles of more than the {MAX_PIXELS} pixels that are decoded; shrink them")
    orientation = tags.get(Tag.ORIENTATION, (1,))[0]
    has_alpha = tags.get(Tag.PHOTOMETRIC) == (_TIFF_RGB,) and tags.get(Tag.EXTRA_SAMPLES) in ((1,), (2,))
    alpha_at = places[Tag.EXTRA_SAMPLES] if has_alpha else 0
    return Header(height, width, orientation if orientation in range(1, 9) else 1, "TIFF", alpha_at)


def _pillow_header(data: bytes) -> Header:
    """Let Pillow read a header of any other kind; it reads no pixels here."""
    with Image.open(io.BytesIO(data), formats=_installed_kinds()) as image:
        width, height = image.size
        orientation = exif_orientation(image.info.get("exif", b"").removeprefix(EXIF_START))
        return Header(height, width, orientation, str(image.format))


@cache
def _installed_kinds() -> tuple[str, ...]:
    """Those of ``PILLOW_KINDS`` that this Pillow was built with."""
    Image.init()
    return tuple(kind for kind in PILLOW_KINDS if kind in Image.OPEN)
