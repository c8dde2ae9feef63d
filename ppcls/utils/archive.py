# SPDX-License-Identifier: Apache-2.0
"""Zip and tar archives from anywhere, unpacked so that they appear whole or not at all and harm nothing."""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Callable

from tqdm import tqdm

from ppcls.utils.errors import DataError, StorageError
from ppcls.utils.tar_file import entries_of, open_tar

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
MAX_RATIO = 200
"""Unpacked bytes for a byte of the archive; images reach about 1, and blank ones do not reach this."""
UNSUSPICIOUS_BYTES = 100 << 20
"""Up to this size nobody asks how well an archive is compressed."""
UNSUSPICIOUS_MEMBERS = 100_000
"""Up to this number of files nobody asks how large they are."""
_UNSUSPICIOUS_LIST_BYTES = 8 << 20
MIN_MEMBER_BYTES = 200
"""Bytes of the archive for each file in a larger one; an icon takes more."""
_BLOCK_BYTES = 1 << 20
_DAMAGED = (
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


def is_archive(name: str) -> bool:
    """Return whether a name ends as an archive's does."""
    return name.lower().endswith(ENDINGS)


def unpack(archive: str | os.PathLike, folder: str | os.PathLike, shown: str | None = None) -> None:
    """Unpack an archive into a new folder, which appears when everything is in it.

    Files and folders only: links, devices and names that lead out of the folder are refused. Permissions,
    owners and times are left behind.

    Args:
        archive: a zip or tar file, told apart by its content.
        folder: where it goes; must not exist yet.
        shown: what messages call the archive.

    Raises:
        DataError: it is damaged, cut off, encrypted, refused or suspiciously large; names the member.
        StorageError: the disk is too small, or cannot be written.
    """
    folder = Path(folder)
    shown = shown or os.fspath(archive)
    partial = folder.with_name(f".{folder.name}.unpacking-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        with _reading_errors(shown):
            _write_members(Path(archive), partial, shown)
        # Once for all files: a folder that outlives a power failure must not be full of empty ones.
        os.sync()
        os.rename(partial, folder)
    except OSError as error:
        raise StorageError(
            f"{shown}: cannot be unpacked into {folder.parent} ({error.strerror or error}); "
            "let Global.cache_dir name another directory"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def parts_of(name: str) -> tuple[str, ...]:
    """The parts of a relative name; none for the folder itself.

    Raises:
        ValueError: it is absolute, or leads out of the folder.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError("would be written outside of the folder")
    return path.parts


_BOMB = "as only an archive that is made to fill disks does"


@dataclass(frozen=True)
class _Member:
    """One entry of an archive; ``trouble`` says why it cannot be accepted."""

    name: str
    size: int
    is_folder: bool
    trouble: str | None
    open: Callable[[], IO[bytes]]


def _write_members(archive: Path, directory: Path, shown: str) -> None:
    limits = _Limits(archive.stat().st_size, shutil.disk_usage(directory).free, shown)
    label = Path(shown).name
    with tqdm(desc=f"unpack {label}", unit="B", unit_scale=True, disable=not sys.stderr.isatty()) as bar:
        for member in _members(archive, limits):
            here = f"{shown}: member {member.name!r:.200}"
            try:
                parts = parts_of(member.name)
            except ValueError as error:
                raise DataError(f"{here} {error}; nothing was unpacked") from error
            if member.trouble:
                raise DataError(f"{here} {member.trouble}; nothing was unpacked")
            limits.add_member(member.size)
            target = directory.joinpath(*parts)
            try:
                if member.is_folder:
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with open(target, "xb") as file:
                    _copy(member, file, bar)
            except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                raise DataError(f"{here} is there twice; nothing was unpacked") from error


def _copy(member: _Member, file: IO[bytes], bar: tqdm) -> None:
    with member.open() as source:
        left = member.size
        while left:
            block = source.read(min(left, _BLOCK_BYTES))
            if not block:
                raise EOFError(f"{member.name!r:.200} ends {left} bytes early")
            file.write(block)
            left -= len(block)
            bar.update(len(block))
        # Zip files compare their checksum at the end of the data only.
        if source.read(1):
            raise ValueError(f"{member.name!r:.200} is longer than it says")


class _Limits:
    """How much an archive may hold."""

    def __init__(self, archive_bytes: int, free_bytes: int, shown: str) -> None:
        self.most = max(UNSUSPICIOUS_BYTES, MAX_RATIO * archive_bytes)
        self.free_bytes = free_bytes
        self.shown = shown
        self.total = 0
        # Nearly nothing but the list is in an archive of empty files; images take ten times the room of their entries.
        self.most_directory_bytes = max(_UNSUSPICIOUS_LIST_BYTES, archive_bytes // 4)
        self.most_members = max(UNSUSPICIOUS_MEMBERS, archive_bytes // MIN_MEMBER_BYTES)
        self.num_members = 0

    def add(self, size: int) -> None:
        """Count bytes that are about to be unpacked."""
        self.total += size
        self.require(self.total)

    def add_member(self, size: int) -> None:
        """Count a file or folder that is about to be made."""
        self.num_members += 1
        if self.num_members > self.most_members:
            raise DataError(f"{self.shown}: holds more than {self.most_members} members, {_BOMB}; nothing was unpacked")
        self.add(size)

    def require(self, total: int) -> None:
        """Refuse what is too much.

        Raises:
            DataError: more than an archive of this size can honestly hold.
            StorageError: more than the disk has room for.
        """
        if total > self.most:
            raise DataError(
                f"{self.shown}: holds {_size(total)} or more, over {MAX_RATIO} times its own size, {_BOMB}; "
                "nothing was unpacked"
            )
        if total > self.free_bytes:
            raise StorageError(
                f"{self.shown}: holds {_size(total)} or more, and the disk has {_size(self.free_bytes)} left; "
                "let Global.cache_dir name a larger one"
            )


def _members(archive: Path, limits: _Limits) -> Iterator[_Member]:
    with open(archive, "rb") as file:
        start = file.read(8)
    # Not zipfile.is_zipfile: it also takes a tar with a zip in it for one.
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        yield from _zip_members(archive, limits)
        return
    with open_tar(archive) as opened:
        yield from _tar_members(opened, limits)


def _zip_members(archive: Path, limits: _Limits) -> Iterator[_Member]:
    with open(archive, "rb") as file, zipfile.ZipFile(_Directory(file, limits.most_directory_bytes)) as opened:
        entries = opened.infolist()
        limits.require(sum(entry.file_size for entry in entries))
        for entry in entries:
            kind = stat.S_IFMT(entry.external_attr >> 16)
            trouble = None
            if kind == stat.S_IFLNK:
                trouble = "is a link"
            elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                trouble = "is neither a file nor a folder"
            elif entry.flag_bits & 1:
                trouble = "is encrypted"
            yield _Member(
                entry.filename, entry.file_size, entry.is_dir(), trouble, lambda entry=entry: opened.open(entry)
            )


def _tar_members(opened: tarfile.TarFile, limits: _Limits) -> Iterator[_Member]:
    stream = opened.fileobj
    for entry in entries_of(opened):
        trouble = None
        if entry.issym() or entry.islnk():
            trouble = "is a link"
        elif not (entry.isreg() or entry.isdir()):
            trouble = "is neither a file nor a folder"
        size = entry.size if entry.isreg() else 0
        yield _Member(entry.name, size, entry.isdir(), trouble, lambda entry=entry: opened.extractfile(entry))
    # tarfile takes the end of the file for the end of the archive, wherever it comes.
    if stream.last != bytes(tarfile.BLOCKSIZE):
        raise EOFError("it ends before its end mark")
    # The checksum of a compressed file stands behind its last byte.
    while block := stream.read(_BLOCK_BYTES):
        limits.add(len(block))


class _Directory:
    """A zip file whose list of members, which `zipfile` reads at once, may not be larger than so much."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self.file = file
        self.most = most
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if size > self.most:
            raise zipfile.BadZipFile(f"its list of members has {size} bytes, {_BOMB}")
        return self.file.read(size)


@contextmanager
def _reading_errors(shown: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{shown}: damaged, cut off or no archive ({reason:.200}); get it again") from error
    except OSError as error:
        # What the system says has a number; what gzip and bz2 say of their input has none.
        if error.errno is not None:
            raise
        raise DataError(f"{shown}: damaged or cut off ({error}); get it again") from error


def _size(count: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
