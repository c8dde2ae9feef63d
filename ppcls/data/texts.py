# SPDX-License-Identifier: Apache-2.0
"""Many texts in one buffer: a tenth of the memory of Python strings, and nothing that forked workers would copy.

A forked process shares memory with its parent until one of them writes to it, and merely looking at a Python
object writes its reference count. Here there is one object for all texts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np

_WORD = 8
_BLOCK = 1 << 16
"""How many texts are digested at once: enough for NumPy, little enough for the processor's cache."""
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


class Texts(Sequence[str]):
    """Texts that are pieces of a buffer.

    Args:
        buffer: bytes, UTF-8; as `os.fsdecode` reads them where they are none.
        starts: where each text begins, [N] of any unsigned type.
        sizes: the bytes of each, [N].
    """

    def __init__(self, buffer: bytes, starts: np.ndarray, sizes: np.ndarray) -> None:
        self.buffer = buffer
        self.starts = starts
        self.sizes = sizes

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Return the texts, copied into one buffer."""
        pieces = [os.fsencode(text) for text in texts]
        sizes = np.fromiter(map(len, pieces), np.int32, len(pieces))
        ends = np.cumsum(sizes, dtype=np.uint64)
        return cls(b"".join(pieces), ends - sizes.astype(np.uint64), sizes)

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        start = int(self.starts[index])
        return os.fsdecode(self.buffer[start : start + int(self.sizes[index])])

    def digests(self) -> np.ndarray:
        """Return a number for each text, uint64 [N]: the same for the same texts, almost never for two different ones.

        The texts are taken eight bytes at a time, all of a block at once; a Python loop would take ten times as long.
        """
        buffer = self.buffer if len(self.buffer) >= _WORD else self.buffer.ljust(_WORD, b"\0")
        # One word begins at every byte.
        words = np.ndarray(len(buffer) - _WORD + 1, "<u8", buffer, strides=(1,))
        digests = np.empty(len(self), np.uint64)
        for head in range(0, len(self), _BLOCK):
            starts = self.starts[head : head + _BLOCK].astype(np.int64)
            left = self.sizes[head : head + _BLOCK].astype(np.int64)
            values = left.astype(np.uint64) * _FACTOR
            there = np.arange(len(starts))
            while len(there := there[left[there] > 0]):
                # Behind the last whole word of the buffer, its bytes are shifted to where they belong.
                begin = np.minimum(starts[there], len(words) - 1)
                word = words[begin] >> (8 * (starts[there] - begin)).astype(np.uint64)
                surplus = 8 * np.maximum(_WORD - left[there], 0)
                word &= np.uint64(2**64 - 1) >> surplus.astype(np.uint64)
                mixed = (values[there] ^ word) * _FACTOR
                values[there] = mixed ^ (mixed >> np.uint64(29))
                starts[there] += _WORD
                left[there] -= _WORD
            digests[head : head + len(values)] = values
        return digests


class Joined(Sequence[str]):
    """Several `Texts`, one behind the other."""

    def __init__(self, parts: Sequence[Texts]) -> None:
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def place(self, index: int) -> tuple[int, int]:
        """Return which of the parts has a text, and its index there."""
        index = range(len(self))[index]
        part = int(np.searchsorted(self.ends, index, "right"))
        return part, index - (int(self.ends[part - 1]) if part else 0)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        part, inside = self.place(index)
        return self.parts[part][inside]

    def __iter__(self) -> Iterator[str]:
        for part in self.parts:
            yield from part

    def digests(self) -> np.ndarray:
        """Return a number for each text, uint64 [N]; see `Texts.digests`."""
        return np.concatenate([part.digests() for part in self.parts])
