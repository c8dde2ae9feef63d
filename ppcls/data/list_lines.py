# SPDX-License-Identifier: Apache-2.0
"""The lines of a list file, ``path<delimiter>label``: ten million of them in seconds.

Almost all lines of almost all lists are plain: text, a delimiter, digits. Those are found by whole-array operations
on the bytes of the file, a block at a time. The others (faulty, blank, or merely unusual) go through `parse_line`
one by one, which is the definition of what a line means.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from ppcls.data.texts import Texts
from ppcls.data.transforms import functional
from ppcls.utils.errors import DataError

_BLOCK_BYTES = 1 << 22
_MAX_DIGITS = 18
"""So many digits always fit an int64."""
_MAX_BLANKS = 16
"""A line that has more of them in a row is read one by one."""
_SHOWN = 100

_IS_BLANK = np.zeros(256, bool)
_IS_BLANK[list(b" \t\r\v\f\x1c\x1d\x1e\x1f")] = (
    True  # what `str.strip` takes away, among ASCII; a newline ends the line
)
# A path that begins with one of these bytes may begin with a blank beyond ASCII, such as the ideographic space.
_IS_PLAIN_START = ~_IS_BLANK
_IS_PLAIN_START[[ord("\n"), 0xC2, 0xE1, 0xE2, 0xE3]] = False
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Fault:
    """What is wrong with a line, from 1 on."""

    line: int
    problem: str


class ListFile:
    """A list file in memory: its bytes, and where in them the paths are.

    Args:
        path: the list file.
        delimiter: what stands between path and label; None means white space. The last one in the line counts.
        max_faults: how many faults are kept; the others are counted.

    Attributes:
        paths: of the good lines, in their order.
        labels: int64 [N].
        faults: the first ones.
        num_faults: how many lines are faulty.

    Raises:
        DataError: the file cannot be read, or is not UTF-8; names the file, and the line.
        ValueError: an empty delimiter.
    """

    def __init__(self, path: str, delimiter: str | None, max_faults: int) -> None:
        if delimiter == "":
            raise ValueError("delimiter: an empty text cannot stand between path and label; null means white space")
        self.path = path
        data = _read(path)
        num_lines = data.count(b"\n") + (not data.endswith(b"\n"))
        starts = np.empty(num_lines, np.uint32 if len(data) < 2**32 else np.uint64)
        sizes = np.empty(num_lines, np.int32)
        self.labels = np.empty(num_lines, np.int64)
        self.faults: list[Fault] = []
        self.num_faults = 0
        skipped = []
        view, position, line, count = memoryview(data), len(_BOM) * data.startswith(_BOM), 1, 0
        while position < len(data):
            end = data.find(b"\n", position + _BLOCK_BYTES) + 1 or len(data)
            block = _split(view[position:end], delimiter)
            self._read_rest(block, view[position:end], line, delimiter, max_faults)
            kept = np.flatnonzero(block.is_kept)
            total = count + len(kept)
            starts[count:total] = block.starts[kept] + position
            sizes[count:total] = block.sizes[kept]
            self.labels[count:total] = block.labels[kept]
            if len(kept) < len(block.starts):
                skipped.append((count + np.cumsum(block.is_kept))[~block.is_kept])
            position, line, count = end, line + len(block.starts), total
        for array in (starts, sizes, self.labels):
            array.resize(count, refcheck=False)
        self.paths = Texts(data, starts, sizes)
        # How many good lines stand before each of the others: the numbers of all lines follow from it.
        self._skipped = np.concatenate(skipped) if skipped else np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def line(self, index: int) -> int:
        """Return the number of a good line, from 1 on."""
        return index + 1 + int(np.searchsorted(self._skipped, index, "right"))

    def _read_rest(self, block: _Block, view: memoryview, line: int, delimiter: str | None, max_faults: int) -> None:
        """Read the lines that are not plain, and keep the good ones."""
        for position in np.flatnonzero(~block.is_kept):
            start = int(block.starts[position])
            try:
                text = str(view[start : int(block.ends[position])], "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{self.path}:{line + position}: not UTF-8; store the list file as UTF-8") from error
            try:
                found = parse_line(text, delimiter)
            except ValueError as error:
                self.num_faults += 1
                if self.num_faults <= max_faults:
                    self.faults.append(Fault(line + int(position), str(error)))
                continue
            if found is not None:
                path, label = found
                block.starts[position] = start + len(text[: len(text) - len(text.lstrip())].encode())
                block.sizes[position] = len(path.encode())
                block.labels[position] = label
                block.is_kept[position] = True


def parse_line(line: str, delimiter: str | None) -> tuple[str, int] | None:
    """Return path and label of a line, None if it is blank.

    Raises:
        ValueError: it is faulty; says how.
    """
    line = line.strip()
    if not line:
        return None
    if "\r" in line:
        raise ValueError(f"a carriage return within {_shown(line)}; end lines with \\n or \\r\\n")
    fields = line.rsplit(delimiter, 1)
    if len(fields) < 2:
        raise ValueError(f"no label in {_shown(line)}")
    path, text = fields[0].strip(), fields[1]
    try:
        # Python reads 1_0 as 10.
        label = int(text.replace("_", "x"))
    except ValueError:
        raise ValueError(f"label {_shown(text)} is not a whole number") from None
    if label < 0:
        raise ValueError(f"label {label} is negative")
    if label > np.iinfo(np.int64).max:
        raise ValueError(f"label {label} is too large")
    if not path:
        raise ValueError(f"no path in {_shown(line)}")
    return path, label


@dataclass(frozen=True)
class _Block:
    """Lines of a part of the file, by their positions in it; sizes and labels only of those that are kept."""

    starts: np.ndarray
    ends: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    is_kept: np.ndarray


def _split(view: memoryview, delimiter: str | None) -> _Block:
    """Find the lines, and read the plain ones."""
    block = np.frombuffer(view, np.uint8)
    ends = np.flatnonzero(block == ord("\n"))
    if not len(ends) or ends[-1] != len(block) - 1:
        ends = np.append(ends, len(block))
    starts = np.empty_like(ends)
    starts[0] = 0
    starts[1:] = ends[:-1] + 1
    stops, is_plain = _without_blanks(block, starts, ends)
    is_plain &= _IS_PLAIN_START[block[starts]]
    # The position before the block is read at its end; a line that is so short is not plain.
    label_starts, labels = stops.copy(), np.zeros(len(stops), np.int64)
    goes_on = is_plain.copy()
    for power in range(_MAX_DIGITS):
        digits = block[label_starts - 1] - np.uint8(ord("0"))
        goes_on &= (digits < 10) & (label_starts > starts)
        if not goes_on.any():
            break
        labels += digits * (goes_on * np.int64(10**power))
        label_starts -= goes_on
    is_plain &= (label_starts < stops) & ~goes_on
    if delimiter is None:
        path_ends = label_starts - 1
        is_plain &= _IS_BLANK[block[path_ends]]
    else:
        text = delimiter.encode()
        path_ends = label_starts - len(text)
        for offset, byte in enumerate(text):
            is_plain &= block[np.maximum(path_ends + offset, 0)] == byte
    is_plain &= path_ends > starts
    path_ends, is_short = _without_blanks(block, starts, np.maximum(path_ends, starts))
    is_plain &= is_short & (path_ends > starts)
    # A path may end in a blank beyond ASCII.
    is_plain &= block[path_ends - 1] < 0x80
    returns = np.flatnonzero(block == ord("\r"))
    inner = returns[block[np.minimum(returns + 1, len(block) - 1)] != ord("\n")]
    is_plain[np.searchsorted(ends, inner)] = False
    if block.max() >= 0x80:
        _refuse_in_place(view, ends, is_plain)
    return _Block(starts, ends, path_ends - starts, labels, is_plain)


def _without_blanks(block: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where texts end without the blanks behind them, and which have few enough of those."""
    ends = ends.copy()
    for _ in range(_MAX_BLANKS):
        is_blank = _IS_BLANK[block[ends - 1]] & (ends > starts)
        if not is_blank.any():
            break
        ends -= is_blank
    return ends, ~(_IS_BLANK[block[ends - 1]] & (ends > starts))


def _refuse_in_place(view: memoryview, ends: np.ndarray, is_plain: np.ndarray) -> None:
    """Mark the first line that is not UTF-8, so that it is read one by one, and refused."""
    try:
        str(view, "utf-8")
    except UnicodeDecodeError as error:
        is_plain[np.searchsorted(ends, error.start)] = False


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def _read(path: str) -> bytes:
    try:
        return functional.read_file(path)
    except DataError as error:
        here = "" if os.path.isabs(path) else f"; paths start from the folder where the command runs, {os.getcwd()}"
        raise DataError(f"cls_label_path: {error}{here}") from error
