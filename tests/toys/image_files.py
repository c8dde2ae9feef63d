# SPDX-License-Identifier: Apache-2.0
"""Image files byte by byte, where no library writes what a test needs."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

# Smooth, with each channel and each corner different.
PICTURE = (np.add.outer(np.arange(40) * 2, np.arange(60))[..., None] + np.array([0, 40, 80])).astype(np.uint8)

# EXIF 2.32, section 4.6.4, tag 0x0112: where the stored row 0 and column 0 belong, undone with numpy alone.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


def encode(image: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    """The file that Pillow writes."""
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, kind, **options)
    return file.getvalue()


def exif(orientation: int, order: str = "<") -> bytes:
    """A block of EXIF that states the orientation and nothing else."""
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def jpeg_segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def jpeg_header(width: int, height: int, marker: int = 0xC0, before: bytes = b"") -> bytes:
    """The start of a JPEG up to the data of its first scan."""
    frame = struct.pack(">BHHB", 8, height, width, 3) + bytes([1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0])
    scan = bytes([3, 1, 0, 2, 0, 3, 0, 0, 63, 0])
    return b"\xff\xd8" + before + jpeg_segment(marker, frame) + jpeg_segment(0xDA, scan) + bytes(50)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(
    width: int,
    height: int,
    scanlines: bytes,
    *,
    depth: int = 8,
    color: int = 2,
    interlaced: bool = False,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A PNG from its scan lines, each with its filter byte; `before` and `after` are chunks around the data."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    data = png_chunk(b"IDAT", zlib.compress(scanlines))
    start = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
    return start + before + data + after + png_chunk(b"IEND", b"")


def scanlines(pixels: np.ndarray) -> bytes:
    """Rows [H, W, C] with the filter byte "none" before each."""
    return b"".join(b"\0" + row.tobytes() for row in np.ascontiguousarray(pixels))


def interlaced_scanlines(pixels: np.ndarray) -> bytes:
    """The seven passes of Adam7 (PNG specification, section 8.2): first row, first column, and their steps."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    return b"".join(scanlines(pixels[top::down, left::right]) for top, left, down, right in passes)


def tiff(
    pixels: np.ndarray,
    *,
    order: str = "<",
    big: bool = False,
    compressed: bool = False,
    **tags: int,
) -> bytes:
    """A TIFF of one strip; `tags` are t258=... by number, in place of those that the array implies."""
    height, width, channels = pixels.shape
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    data = zlib.compress(data) if compressed else data
    bits, offset_code = pixels.itemsize * 8, "Q" if big else "I"
    offset_size = struct.calcsize(offset_code)
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}H", 43 if big else 42)
    start += struct.pack(f"{order}HHQ", 8, 0, 16) if big else struct.pack(f"{order}I", 8)
    entries = {256: width, 257: height, 258: bits, 259: 8 if compressed else 1, 262: 2 if channels > 2 else 1}
    entries |= {273: 0, 277: channels, 278: height, 279: len(data)}
    entries |= {int(tag[1:]): value for tag, value in tags.items()}
    size = (8 if big else 2) + len(entries) * (20 if big else 12) + offset_size
    bits_at = len(start) + size
    entries[273] = bits_at + 2 * channels
    directory = struct.pack(f"{order}{'Q' if big else 'H'}", len(entries))
    for tag, value in sorted(entries.items()):
        if tag == 258 and 2 * channels > offset_size:
            directory += struct.pack(f"{order}HH{offset_code}{offset_code}", tag, 3, channels, bits_at)
        elif tag == 258:
            values = struct.pack(f"{order}{channels}H", *[value] * channels).ljust(offset_size, b"\0")
            directory += struct.pack(f"{order}HH{offset_code}", tag, 3, channels) + values
        elif tag in (258, 259, 262, 274, 277, 338, 339):
            value = struct.pack(f"{order}H", value).ljust(offset_size, b"\0")
            directory += struct.pack(f"{order}HH{offset_code}", tag, 3, 1) + value
        else:
            value = struct.pack(f"{order}I", value).ljust(offset_size, b"\0")
            directory += struct.pack(f"{order}HH{offset_code}", tag, 4, 1) + value
    bits_per_channel = struct.pack(f"{order}{channels}H", *[bits] * channels)
    return start + directory + bytes(offset_size) + bits_per_channel + data


def webp_header(form: bytes, width: int, height: int) -> bytes:
    """A WebP of one of the three forms that states a size and holds nothing."""
    if form == b"VP8X":
        content = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    elif form == b"VP8L":
        content = b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + bytes(5)
    else:
        content = b"\x10\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width, height) + bytes(10)
    chunk = form + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def gif_header(screen: tuple[int, int], frame: tuple[int, int]) -> bytes:
    """A GIF of two colours with a screen and one frame of those widths and heights, and hardly any data."""
    start = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return start + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\2\2\x44\1\0;"


def bmp_header(width: int, height: int, compression: int = 0) -> bytes:
    """A BMP of 8 bits that states a size and holds a black palette and hardly any data."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, compression, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 2000, 0, 0, 54 + 1024) + info + bytes(1024 + 100)
