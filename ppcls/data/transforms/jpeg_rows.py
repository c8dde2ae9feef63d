# SPDX-License-Identifier: Apache-2.0
"""A JPEG of only those rows of another that a crop needs, so that no more is decoded.

Rows above can be left out where every row of blocks begins anew, at a restart marker, as in the images that
``tools/pack_dataset.py`` has shrunk; rows below in every baseline JPEG. The pixels are those of a full decode, to the
bit.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_START_OF_FRAME, _START_OF_SCAN = 0xC0, 0xDA
_NOT_FRAMES = (0xC4, 0xC8, 0xCC)
_INTERVAL_MARKER = b"\xff\xdd"
_END_OF_IMAGE = b"\xff\xd9"
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_NUM_RESTARTS = 8
_LOOKED_AT = 2048
"""Within so many bytes a file without further ado, such as a preview or profile, states its restart interval."""
_LITTLE_GAIN = 0.95
_MARGIN = 2
"""Colour of half the resolution is smoothed: a row takes part in those beside it."""


class _Layout(NamedTuple):
    frame: int  # where the segment with the size begins
    scan: int  # where the coded image begins
    height: int
    block_height: int
    num_rows: int  # of blocks
    begins_anew: bool  # each row of them


def may_be_cut(data: bytes) -> bool:
    """Return False, within a microsecond, for most files of which `only_rows` would give None."""
    return data.find(_INTERVAL_MARKER, 0, _LOOKED_AT) >= 0


def only_rows(data: bytes, top: int, bottom: int) -> tuple[bytes, int] | None:
    """Return a JPEG that has the rows from ``top`` up to ``bottom``, and the row of the whole that is its first.

    None where the file does not allow it, or where it would be the whole.
    """
    layout = _layout(data) if may_be_cut(data) else None
    if layout is None or not layout.begins_anew or not data.endswith(_END_OF_IMAGE):
        return None
    first = max(top - _MARGIN, 0) // layout.block_height
    last = min(-(-(bottom + _MARGIN) // layout.block_height), layout.num_rows)
    if last - first == layout.num_rows:
        return None
    marks = [found.start() for found in _RESTART.finditer(data, layout.scan)]
    if len(marks) != layout.num_rows - 1:
        return None
    begin = marks[first - 1] + 2 if first else layout.scan
    end = marks[last - 1] if last < layout.num_rows else len(data) - len(_END_OF_IMAGE)
    rows = bytearray(data[begin:end])
    # Restart markers are numbered from 0 to 7 and again; one of another number would be taken for damage.
    for number, mark in enumerate(marks[first : last - 1]):
        rows[mark - begin + 1] = 0xD0 + number % _NUM_RESTARTS
    height = min(last * layout.block_height, layout.height) - first * layout.block_height
    size_at = layout.frame + 5
    head = (data[:size_at], height.to_bytes(2, "big"), data[size_at + 2 : layout.scan])
    return b"".join([*head, rows, _END_OF_IMAGE]), first * layout.block_height


def upper_rows(data: bytes, bottom: int, reduction: int = 1) -> bytearray | None:
    """Return a JPEG whose header says that it ends soon below row ``bottom``.

    A decoder stops there, and libjpeg complains on stderr of what comes behind. None where the file does not allow
    it, or where it would gain little.

    Args:
        data: a JPEG.
        bottom: the row behind the last one that is needed.
        reduction: the part of its size that it is decoded at.
    """
    layout = _layout(data)
    if layout is None or not data.endswith(_END_OF_IMAGE):
        return None
    rows = -(-(bottom + _MARGIN * reduction) // layout.block_height)
    if rows > layout.num_rows * _LITTLE_GAIN:
        return None
    result = bytearray(data)
    result[layout.frame + 5 : layout.frame + 7] = (rows * layout.block_height).to_bytes(2, "big")
    return result


def _layout(data: bytes) -> _Layout | None:
    """Read the segments in front of the image (ITU-T T.81, annex B); None unless it is baseline, in one scan."""
    position, frame, interval = 2, 0, 0
    try:
        while data[position + 1] != _START_OF_SCAN:
            marker = data[position + 1]
            if marker in (_START_OF_FRAME, _START_OF_FRAME + 1):
                frame = position
            elif marker == _INTERVAL_MARKER[1]:
                interval = data[position + 4] << 8 | data[position + 5]
            elif data[position] != 0xFF or (marker & 0xF0 == 0xC0 and marker not in _NOT_FRAMES):
                # No marker at all; progressive, lossless and other rare kinds.
                return None
            position += 2 + (data[position + 2] << 8 | data[position + 3])
        if not frame or data[frame + 9] != 3 or data[position + 4] != 3:
            return None
        height, width = (data[at] << 8 | data[at + 1] for at in (frame + 5, frame + 7))
        samplings = data[frame + 11 : frame + 20 : 3]
        block_width, block_height = 8 * max(s >> 4 for s in samplings), 8 * max(s & 15 for s in samplings)
        begins_anew = interval == -(-width // block_width)
        scan = position + 2 + (data[position + 2] << 8 | data[position + 3])
    except (IndexError, ValueError, ZeroDivisionError):
        return None
    return _Layout(frame, scan, height, block_height, -(-height // block_height), begins_anew)
