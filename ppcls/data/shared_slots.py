# SPDX-License-Identifier: Apache-2.0
"""Memory that processes share, cut into slots of one batch each."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Sequence

import numpy as np

_ALIGNMENT = 64
Slot = tuple[int, int]
"""Where a slot begins, and its size, in bytes."""
Placed = tuple[int, tuple[int, ...], str]
"""Where an array lies: its first byte, shape and type."""


class SharedSlots:
    """A file without a name or a place, whose content is memory.

    Made before the processes are forked, it can be sized when the size of a batch is known. Unlike what lies in
    ``/dev/shm``, it is not bound by the size of that file system, which Docker sets to 64 MB.

    Raises:
        OSError: the system has no such files.
    """

    def __init__(self) -> None:
        if not hasattr(os, "memfd_create"):
            raise OSError("this system has no memory files")
        self.file = os.memfd_create("ppcls batches")
        self._memory: mmap.mmap | None = None

    def open(self, slot_bytes: int, num_slots: int) -> list[Slot]:
        """Size the memory, once, and return its slots.

        Raises:
            OSError: the system refuses so much of it.
        """
        size = -(-slot_bytes // _ALIGNMENT) * _ALIGNMENT
        os.ftruncate(self.file, size * num_slots)
        self._memory = mmap.mmap(self.file, size * num_slots)
        return [(number * size, size) for number in range(num_slots)]

    @property
    def memory(self) -> mmap.mmap:
        """All of it, in whichever process this is.

        Raises:
            OSError: the system refuses so much of it.
        """
        if self._memory is None:
            self._memory = mmap.mmap(self.file, 0)
        return self._memory

    def close(self) -> None:
        """Let go of it; it is freed when the last process and the last array have done so."""
        os.close(self.file)
        self._memory = None


class Room:
    """Makes arrays within one slot as long as they fit, and elsewhere otherwise."""

    def __init__(self, memory: mmap.mmap, slot: Slot) -> None:
        self.memory = memory
        self.start, self.size = slot
        self.used = 0

    def empty(self, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        """Return an array to write into."""
        size = math.prod(shape) * dtype.itemsize
        start = -(-self.used // _ALIGNMENT) * _ALIGNMENT
        if start + size > self.size:
            return np.empty(shape, dtype)
        self.used = start + size
        return placed(self.memory, (self.start + start, tuple(shape), dtype.str))

    def place(self, array: np.ndarray) -> Placed | None:
        """Return where an array lies; None for one that lies elsewhere."""
        if not array.flags.c_contiguous:
            return None
        begin = np.frombuffer(self.memory, np.uint8, 1, self.start).ctypes.data
        offset = array.ctypes.data - begin
        if not 0 <= offset <= self.size - array.nbytes:
            return None
        return self.start + offset, array.shape, array.dtype.str


def placed(memory: mmap.mmap, place: Placed) -> np.ndarray:
    """Return the array that lies there."""
    start, shape, dtype = place
    return np.frombuffer(memory, dtype, math.prod(shape), start).reshape(shape)


def slot_bytes(arrays: Sequence[np.ndarray]) -> int:
    """Return how large a slot has to be for arrays like these."""
    return sum(-(-array.nbytes // _ALIGNMENT) * _ALIGNMENT for array in arrays)
