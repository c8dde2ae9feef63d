# SPDX-License-Identifier: Apache-2.0
"""A pack: one file with the images of a data set, their labels and their paths.

::

    header    512 bytes: a line of JSON that `head -1` shows, spaces, its crc32 as 8 hexadecimal digits
    images    one file after the other, in the order of the list
    index     little-endian: starts of the images int64 [N + 1], starts of the paths int64 [N + 1], labels int64 [N],
              crc32 of the images uint32 [N], the paths, and JSON with settings, class names and what was left out
    digests   sha256 of the images, 32 bytes each

The header has the sizes of all parts and the sha256 of index and digests; with them every byte of the file is
accounted for. Opening checks header, size and index, reading an image its crc32, `Pack.damaged` everything.

Not LMDB: a database that is cut off ends the process with SIGBUS (20 of 20 cuts), one bit flipped in its tree may end
it with SIGSEGV (4 of 60), and neither can be caught. Nothing is mapped here; an image is one read at its place.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ppcls.utils.errors import DataError, StorageError

FORMAT = "ppcls pack 1"
HEADER_BYTES = 512
DIGEST_BYTES = 32
LIST_NAME = "list.txt"
_CRC_DIGITS = 8
_START = b'{"format": "ppcls pack '


class Pack:
    """A pack file, open for reading; processes that are forked later may read at the same time.

    Args:
        path: the file.

    Attributes:
        labels: int64 [N].
        class_names: the names of the labels, or None.
        settings: what it was packed from and how.
        skipped: each image that was left out, and why.

    Raises:
        DataError: no pack, unfinished, cut off or altered; says which.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.file_path = os.fspath(path)
        try:
            # Without position or buffer, which processes would share: `os.pread` reads at a place.
            self._file = os.open(self.file_path, os.O_RDONLY | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            here = "" if os.path.isabs(self.file_path) else f"; paths start from {os.getcwd()}"
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{self.file_path}: cannot be read ({reason}){here}") from error
        weakref.finalize(self, os.close, self._file)
        self.header = self._load_header()
        self._load_index()

    def __reduce__(self) -> tuple:
        return Pack, (self.file_path,)

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> str:
        """Return the path that an image had, relative to the folder that was packed."""
        start, end = self._path_starts[index : index + 2].tolist()
        return os.fsdecode(bytes(self._paths[start:end]))

    def where(self, index: int) -> str:
        """Return the place of an image, for messages."""
        return f"{self.file_path}: image {index}, {self.path(index)}"

    def read(self, index: int) -> bytes:
        """Return the bytes of an image's file.

        Raises:
            DataError: they are not those that were packed; names the image.
        """
        start, end = self._starts[index : index + 2].tolist()
        try:
            data = self._bytes_at(start, end - start)
        except DataError as error:
            raise DataError(f"{self.where(index)}: {error}") from error
        if zlib.crc32(data) != self._crcs[index]:
            raise DataError(f"{self.where(index)}: altered, it is not what was packed; get or pack the file again")
        return data

    def damaged(self) -> Iterator[tuple[int, str | None]]:
        """Go through the whole file; yield for each image its number of bytes and what is wrong with it, or None.

        Raises:
            DataError: the digests themselves are damaged.
        """
        digests = self._section("digests", self.header["digests_start"], self.header["file_bytes"])
        for index in range(len(self)):
            start, end = self._starts[index : index + 2].tolist()
            try:
                data = self.read(index)
            except DataError as error:
                yield end - start, str(error)
                continue
            expected = digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
            altered = hashlib.sha256(data).digest() != expected
            yield len(data), f"{self.where(index)}: altered, its sha256 is another" if altered else None

    @property
    def digest(self) -> str:
        """The sha256, as hexadecimal digits, that stands for all images, labels and paths."""
        both = self.header["index_sha256"] + self.header["digests_sha256"]
        return hashlib.sha256(both.encode("ascii")).hexdigest()

    def _load_header(self) -> dict:
        try:
            size = os.fstat(self._file).st_size
            block = os.pread(self._file, HEADER_BYTES, 0)
        except OSError as error:
            raise DataError(f"{self.file_path}: cannot be read ({error.strerror})") from error
        header = header_of(block, self.file_path)
        if not header["complete"]:
            raise DataError(f"{self.file_path}: unfinished; give the command that packs it again, it goes on from here")
        if size != header["file_bytes"]:
            raise DataError(
                f"{self.file_path}: cut off or altered, {size} bytes instead of {header['file_bytes']}; get it again"
            )
        return header

    def _load_index(self) -> None:
        images, index_start, digests_start = (self.header[key] for key in ("images", "index_start", "digests_start"))
        index = self._section("index", index_start, digests_start)
        try:
            place = 0

            def array(dtype: str, count: int) -> np.ndarray:
                nonlocal place
                values = np.frombuffer(index, dtype, count, place)
                place += values.nbytes
                return values

            self._starts = array("<i8", images + 1)
            self._path_starts = array("<i8", images + 1)
            self.labels = array("<i8", images)
            self._crcs = array("<u4", images)
            num_path_bytes = int(self._path_starts[-1])
            self._paths = memoryview(index)[place : place + num_path_bytes]
            about = json.loads(index[place + num_path_bytes :])
            self.class_names = about["class_names"]
            self.settings = about["settings"]
            self.skipped = list(about["skipped"])
            sound = (
                _rises(self._starts, HEADER_BYTES, index_start)
                and _rises(self._path_starts, 0, len(self._paths))
                and (not images or self.labels.min() >= 0)
                and (not images or self.class_names is None or self.labels.max() < len(self.class_names))
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{self.file_path}: its index makes no sense ({error}); pack it again") from error
        if not sound:
            raise DataError(f"{self.file_path}: its index makes no sense; pack it again")

    def _section(self, name: str, start: int, end: int) -> bytes:
        try:
            data = self._bytes_at(start, end - start)
        except DataError as error:
            raise DataError(f"{self.file_path}: {error}") from error
        if hashlib.sha256(data).hexdigest() != self.header[f"{name}_sha256"]:
            raise DataError(f"{self.file_path}: its {name} part is altered; get or pack the file again")
        return data

    def _bytes_at(self, start: int, size: int) -> bytes:
        blocks = []
        try:
            # One read gives at most 2 GiB.
            while size and (block := os.pread(self._file, size, start)):
                blocks.append(block)
                start += len(block)
                size -= len(block)
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror})") from error
        if size:
            raise DataError("the file ends before it; it was cut off after it had been opened")
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def header_block(header: dict[str, Any]) -> bytes:
    """Return the first bytes of a pack."""
    text = json.dumps({"format": FORMAT, **header}).encode("ascii") + b"\n"
    text = text.ljust(HEADER_BYTES - _CRC_DIGITS)
    return text + b"%08x" % zlib.crc32(text)


def header_of(block: bytes, name: str) -> dict[str, Any]:
    """Return what `header_block` was given.

    Raises:
        DataError: they are not the first bytes of a pack, or altered.
    """
    if not block.startswith(_START):
        raise DataError(
            f"{name}: not a pack, it starts with {block[:8]!r}; tools/pack_dataset.py makes one of a list or folder"
        )
    text, crc = block[:-_CRC_DIGITS], block[-_CRC_DIGITS:]
    if len(block) < HEADER_BYTES or crc != b"%08x" % zlib.crc32(text):
        raise DataError(f"{name}: its header is cut off or altered; get or pack the file again")
    header = json.loads(text)
    if header["format"] != FORMAT:
        raise DataError(f"{name}: a {header['format']!r}, this version reads {FORMAT!r}; pack it again")
    return header


def unpack(pack: Pack, folder: str | os.PathLike) -> Iterator[int]:
    """Write the images of a pack as files, and ``list.txt`` with their paths and labels; yield each one's size.

    The folder appears when everything is in it. Files have the names that they had when they were packed, without
    a leading ``/`` and without ``..``; an image that is listed twice is written once.

    Raises:
        DataError: an image is damaged, or two different ones have one name.
        StorageError: the folder is not empty, or cannot be written.
    """
    folder = Path(folder).absolute()
    partial = folder.parent / f".{folder.name}.unpacking"
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StorageError(f"{folder}: exists and is not an empty folder; choose another")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with open(partial / LIST_NAME, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
            for index, label in enumerate(pack.labels.tolist()):
                parts = [part for part in PurePosixPath(pack.path(index)).parts if part not in ("/", "..")]
                data = pack.read(index)
                if not _write(partial.joinpath(*parts), data):
                    raise DataError(f"{pack.where(index)}: another image, a folder or the list has this name")
                lines.write(f"{'/'.join(parts)} {label}\n")
                yield len(data)
        os.sync()
        os.replace(partial, folder)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written ({error.strerror or error}); nothing was kept") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(path: Path, data: bytes) -> bool:
    """Write a new file; return whether there is one of this content now."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as file:
            file.write(data)
    except (FileExistsError, NotADirectoryError):
        return path.is_file() and path.read_bytes() == data
    return True


def _rises(starts: np.ndarray, first: int, last: int) -> bool:
    return bool(starts[0] == first and starts[-1] == last and np.all(starts[1:] >= starts[:-1]))
