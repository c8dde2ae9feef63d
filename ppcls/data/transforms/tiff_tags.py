# SPDX-License-Identifier: Apache-2.0
"""The numbers that a TIFF, and EXIF, which is one, states of an image (TIFF 6.0, section 2)."""

from __future__ import annotations

import enum
import struct


class Tag(enum.IntEnum):
    """The tags that are looked at."""

    WIDTH = 0x100
    HEIGHT = 0x101
    BITS = 0x102
    PHOTOMETRIC = 0x106
    ORIENTATION = 0x112
    TILE_WIDTH = 0x142
    TILE_HEIGHT = 0x143
    EXTRA_SAMPLES = 0x152
    SAMPLE_FORMAT = 0x153


_TAGS = frozenset(Tag)
_INTEGER_CODES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_MAX_VALUES = 16  # of one tag: one per channel, and pictures have no more than five


def exif_orientation(exif: bytes) -> int:
    """Return the orientation, 1 to 8, that a block of EXIF states; 1 where it states none.

    Args:
        exif: from its byte order, ``II`` or ``MM``, on.
    """
    try:
        tags, _ = tiff_tags(exif)
    except (LookupError, OverflowError, ValueError, struct.error):
        return 1
    (stated, *_) = tags.get(Tag.ORIENTATION, (1,))
    return stated if stated in range(1, 9) else 1


def tiff_tags(data: bytes) -> tuple[dict[int, tuple[int, ...]], dict[int, int]]:
    """Return the numbers that the first directory of a TIFF, or of EXIF, which is one, states, and where; by tag."""
    order = {b"II": "<", b"MM": ">"}[bytes(data[:2])]
    is_big = 43 in data[2:4]
    count_code, offset_code, entry_size, start = ("Q", "Q", 20, 8) if is_big else ("H", "I", 12, 4)
    offset_size = struct.calcsize(offset_code)
    (position,) = struct.unpack_from(order + offset_code, data, start)
    (num_entries,) = struct.unpack_from(order + count_code, data, position)
    position += struct.calcsize(count_code)
    tags: dict[int, tuple[int, ...]] = {}
    places: dict[int, int] = {}
    for entry in range(position, position + num_entries * entry_size, entry_size):
        tag, kind, num_values = struct.unpack_from(f"{order}HH{offset_code}", data, entry)
        code = _INTEGER_CODES.get(kind)
        if tag not in _TAGS or tag in tags or code is None or num_values == 0:
            continue
        place = entry + entry_size - offset_size
        if num_values * struct.calcsize(code) > offset_size:
            (place,) = struct.unpack_from(order + offset_code, data, place)
        tags[tag] = struct.unpack_from(f"{order}{min(num_values, _MAX_VALUES)}{code}", data, place)
        places[tag] = place
    return tags, places
