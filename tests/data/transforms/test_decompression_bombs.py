# SPDX-License-Identifier: Apache-2.0
"""Small files that would fill the memory: refused by their headers, or decoded without what makes them large."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from functools import partial

import numpy as np
import pytest
from image_files import (
    PICTURE,
    bmp_header,
    encode,
    exif,
    gif_header,
    jpeg_header,
    jpeg_segment,
    png,
    png_chunk,
    scanlines,
    tiff,
    webp_header,
)
from PIL import Image

from ppcls.data.transforms.image_header import MAX_SCANS, read_header
from ppcls.utils.errors import DataError

MIB = 1 << 20
MAX_GROWTH = 256 * MIB
ONE_PIXEL = np.zeros((1, 1, 3), np.uint8)


def zeros(num_bytes: int) -> bytes:
    """So many zeros, deflated, without ever having them all."""
    packer, piece = zlib.compressobj(1), bytes(MIB)
    pieces = [packer.compress(piece) for _ in range(num_bytes // MIB)]
    return b"".join([*pieces, packer.compress(bytes(num_bytes % MIB)), packer.flush()])


def png_of_ten_gigabytes() -> bytes:
    """60,000 x 60,000 pixels of one bit: half a megabyte that becomes 10.8 GB of RGB."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zeros(60_000 * (1 + 7_500))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def jpeg_of_many_scans() -> bytes:
    """A progressive JPEG whose last scan comes again and again, 23 bytes each."""
    content = encode(np.zeros((3000, 3000, 3), np.uint8), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * 1000 + b"\xff\xd9"


def jp2_header() -> bytes:
    """A JPEG 2000 whose size is changed in both places that state it."""
    content = encode(PICTURE, "JPEG2000")
    sizes = struct.pack(">II", *PICTURE.shape[:2])
    content = content.replace(sizes, struct.pack(">II", 50_000, 50_000))
    return content.replace(sizes[4:] + sizes[:4], struct.pack(">II", 50_000, 50_000))


def tiff_of(width: int, height: int, **tags) -> bytes:
    return tiff(ONE_PIXEL, t256=width, t257=height, t278=height, **tags)


REFUSED = {
    "header.png": lambda: png(50_000, 50_000, scanlines(ONE_PIXEL)),
    "largest_header.png": lambda: png(2**31 - 1, 2**31 - 1, scanlines(ONE_PIXEL)),
    "ten_gigabytes.png": png_of_ten_gigabytes,
    "interlaced.png": lambda: png(50_000, 50_000, scanlines(ONE_PIXEL), interlaced=True),
    "baseline.jpg": lambda: jpeg_header(50_000, 50_000),
    "largest.jpg": lambda: jpeg_header(65_535, 65_535),
    "progressive.jpg": lambda: jpeg_header(50_000, 50_000, marker=0xC2),
    "turned.jpg": lambda: jpeg_header(9_000, 10_000, before=jpeg_segment(0xE1, b"Exif\0\0" + exif(6))),
    "many_scans.jpg": jpeg_of_many_scans,
    "only_segments.jpg": lambda: b"\xff\xd8" + jpeg_segment(0xE0, b"") * 500_000 + jpeg_header(8, 8)[2:],
    "screen.gif": lambda: gif_header((65_535, 65_535), (1, 1)),
    "frame.gif": lambda: gif_header((1, 1), (50_000, 50_000)),
    "lossy.webp": lambda: webp_header(b"VP8 ", 16_383, 16_383),
    "lossless.webp": lambda: webp_header(b"VP8L", 16_384, 16_384),
    "canvas.webp": lambda: webp_header(b"VP8X", 50_000, 50_000),
    "header.bmp": lambda: bmp_header(50_000, 50_000),
    "top_down.bmp": lambda: bmp_header(50_000, -50_000),
    "runs.bmp": lambda: bmp_header(50_000, 50_000, compression=1),
    "header.tiff": lambda: tiff_of(50_000, 50_000),
    "motorola.tiff": lambda: tiff_of(50_000, 50_000, order=">"),
    "big.tiff": lambda: tiff_of(2**32 - 1, 2**32 - 1, big=True),
    "tiles.tiff": lambda: tiff_of(8, 8, t322=65_520, t323=65_520, t324=8, t325=8),
    "header.jp2": jp2_header,
    "header.ppm": lambda: b"P6 50000 50000 255\n" + bytes(100),
}

HARMLESS = {
    "text.png": lambda: png(1, 1, b"\0\1\2\3", before=png_chunk(b"zTXt", b"a\0\0" + zeros(400 * MIB))),
    "profile.png": lambda: png(1, 1, b"\0\1\2\3", before=png_chunk(b"iCCP", b"a\0\0" + zeros(400 * MIB))),
    "many_rows.png": lambda: png(1, 1, b"\0\1\2\3" + bytes(100 * MIB)),
    "frames.gif": partial(encode, Image.new("L", (2000, 2000)), "GIF", save_all=True),
    "frames.webp": partial(encode, Image.new("L", (2000, 2000)), "WEBP", save_all=True),
    "frames.png": partial(encode, Image.new("L", (2000, 2000)), "PNG", save_all=True),
}
"""Files that hold far more than the picture shown: the picture is decoded, the rest is not."""

# Decodes each file named and prints what came of it, and by how much the process grew meanwhile.
PROGRAM = """
import json, os, resource, sys
import numpy as np
from ppcls.data.transforms.decoding import decode_image
from ppcls.utils.errors import DataError

def largest():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

# What the imports took and gave back would hide as much growth.
if os.path.exists("/proc/self/statm"):
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[1]) * resource.getpagesize()
    ballast = np.ones(largest() - now, np.uint8)

for path in sys.argv[1:]:
    before = largest()
    try:
        decoded, message = True, decode_image(path).shape
    except DataError as error:
        decoded, message = False, str(error)
    print(json.dumps([path, decoded, message, largest() - before]))
"""


def test_there_are_bombs_enough():
    assert len(REFUSED) >= 20


@pytest.mark.promise("F15")
@pytest.mark.parametrize("name", REFUSED)
def test_a_bomb_is_refused_by_its_header(name):
    reasons = "(pixels )?that are decoded; shrink|more than 64 scans|damaged or cut off"
    with pytest.raises(DataError, match=rf"^{name}: .*({reasons})") as caught:
        read_header(REFUSED[name](), name)
    assert "\n" not in str(caught.value)
    assert ("damaged" in str(caught.value)) == (name == "only_segments.jpg")


def test_a_progressive_jpeg_may_have_as_many_scans_as_encoders_write():
    content = encode(PICTURE, "JPEG", progressive=True)
    assert 5 < content.count(b"\xff\xda") < MAX_SCANS
    assert read_header(content)[:2] == PICTURE.shape[:2]


@pytest.mark.promise("F15")
def test_no_bomb_takes_memory(tmp_path):
    frames = [Image.new("L", (2000, 2000), shade) for shade in range(30)]
    for name, make in (REFUSED | HARMLESS).items():
        content = make(append_images=frames) if name.startswith("frames") else make()
        (tmp_path / name).write_bytes(content)
    # Large, but no bomb: shows that growth is seen.
    (tmp_path / "control.png").write_bytes(encode(Image.new("L", (9400, 9400)), "PNG"))
    names = [*REFUSED, *HARMLESS, "control.png"]
    paths = [str(tmp_path / name) for name in names]
    ran = subprocess.run([sys.executable, "-c", PROGRAM, *paths], capture_output=True, text=True, check=True)
    *answers, (_, decoded, _, growth) = [json.loads(line) for line in ran.stdout.splitlines()]
    assert decoded
    assert growth > 128 * MIB
    assert [path for path, *_ in answers] == paths[:-1]
    for path, decoded, message, growth in answers:
        assert decoded == (path.rpartition("/")[2] in HARMLESS), message
        assert growth < MAX_GROWTH, (path, growth / MIB)
