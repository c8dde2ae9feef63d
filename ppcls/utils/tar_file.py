# SPDX-License-Identifier: Apache-2.0
"""Tar files from anywhere, read so that no header of theirs fills the memory."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Callable

_HEADER_BYTES = 1 << 17  # names and attributes of a member take less
_SHARED_HEADER_BYTES = 1 << 20
_OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}


@contextmanager
def open_tar(path: str | os.PathLike) -> Iterator[tarfile.TarFile]:
    """Open a tar file, compressed or not, whose headers cannot fill the memory; the stream is a `_Tail`."""
    with open(path, "rb") as file:
        start = file.read(8)
    opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), open)
    with opener(path, "rb") as stream, tarfile.open(fileobj=_Tail(stream), mode="r:") as opened:
        opened.fileobj.most = sys.maxsize  # its first header has been read
        yield opened


def entries_of(opened: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members of a tar file, one at a time: a million of them do not stay in memory.

    Raises:
        tarfile.TarError: damaged, or what it says of all members is too much to keep.
    """
    stream = opened.fileobj
    while True:
        stream.most = _HEADER_BYTES
        entry = opened.next()
        stream.most = sys.maxsize
        if entry is None:
            return
        opened.members.clear()
        if sum(map(len, opened.pax_headers.values())) > _SHARED_HEADER_BYTES:
            raise tarfile.ReadError("its headers are too large")
        yield entry


class _Tail:
    """A file that remembers the last block it gave, and gives at most so much at once."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.seek = stream.seek
        self.tell = stream.tell
        self.last = b""
        self.most = _HEADER_BYTES

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.most:
            raise ValueError(f"a header of {size} bytes")
        self.last = self.stream.read(size)
        return self.last
