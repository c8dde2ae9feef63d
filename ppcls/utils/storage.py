# SPDX-License-Identifier: Apache-2.0
"""Directories that appear whole or not at all, and that are trusted only while they verify."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ppcls.utils.errors import StorageError
from ppcls.utils.exchange import exchange
from ppcls.utils.manifest import MANIFEST, Entry, manifest_text, read_manifest

UNFINISHED = re.compile(r"\.(?:(?P<name>.+)\.(?P<role>partial|old|gone)|write-probe)-(?P<process>\d+)")
"""What `published`, `remove` and `ensure_writable` call things for a moment; the number is the process."""


@contextmanager
def published(
    final: str | os.PathLike,
    kind: str,
    owns_name: bool = False,
    num_bytes: int | None = None,
    digests: Mapping[str, str] | None = None,
    about: Mapping[str, Any] | None = None,
) -> Iterator[Path]:
    """Give a directory to fill; at the end of the block it appears as ``final``, complete, in one rename.

    Every file is flushed to disk before ``manifest.json`` (sizes and sha256) is written, and the
    manifest before the rename. A ``final`` that exists already is replaced only then, and on Linux there is no
    moment without it. When the block raises, ``final`` stays as it was.

    Args:
        final: where the directory appears; a link is followed.
        kind: what it is, such as "checkpoint"; only one of the same kind is replaced.
        owns_name: nobody else gives directories this name, so a damaged one is replaced as well.
        num_bytes: what will be put into the directory; where there is less space, nothing is begun.
        digests: file name to sha256 of what the block has hashed itself, known at its end.
        about: what else the manifest is to say, known at the end of the block.

    Raises:
        StorageError: the directory cannot be written, or holds what was not published here.
    """
    final = Path(os.path.realpath(final))
    if not owns_name or not final.is_dir():
        require_replaceable(final, kind)
    partial = final.with_name(f".{final.name}.partial-{os.getpid()}")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        if num_bytes is not None and num_bytes > _free_bytes(partial):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield partial
        _seal(partial, kind, digests or {}, about or {})
        _replace_directory(partial, final)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)  # before the free space is looked up
        space = "" if num_bytes is None else f"; {num_bytes:,} bytes are needed, {_free(final.parent)}"
        # The block may have read something else meanwhile.
        is_elsewhere = error.filename and Path(os.fsdecode(error.filename)).parent not in (partial, final.parent)
        reason = f"{f'{error.filename}: ' if is_elsewhere else ''}{error.strerror or error}"
        raise StorageError(f"{final}: cannot be written ({reason}){space}; nothing was changed") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def require_replaceable(final: str | os.PathLike, kind: str) -> None:
    """Make sure that publishing to ``final`` replaces nothing but what of that kind was published there before.

    Raises:
        StorageError: it is a file, or a directory with something in it that no manifest of that kind lists.
    """
    final = Path(final)
    if final.is_dir():
        present = {path.name for path in final.iterdir()} - {MANIFEST}
        foreign = sorted(present - _listed_files(final, kind))
        if foreign:
            raise StorageError(
                f"{final}: holds {foreign[0]}{f' and {len(foreign) - 1} more' if foreign[1:] else ''}, which would be "
                "lost; choose a new or empty directory"
            )
    elif os.path.lexists(final):
        raise StorageError(f"{final}: is a file, not a directory; choose another directory")


def _listed_files(directory: Path, kind: str) -> set[str]:
    try:
        found, files, _ = read_manifest(directory)
    except StorageError:
        return set()
    return set(files) if found == kind else set()


def verify(directory: str | os.PathLike) -> dict:
    """Return the manifest of a published directory after checking every file's size and sha256.

    Raises:
        StorageError: there is no manifest, or a file is missing, cut off or altered; names the file.
    """
    directory = Path(directory)
    kind, files, about = read_manifest(directory)
    for name, entry in files.items():
        path = directory / name
        try:
            if os.sep in name or not path.is_file() or path.is_symlink():
                raise StorageError(f"{path}: missing, though the manifest lists it")
            size = path.stat().st_size
            if size != entry.size:
                raise StorageError(f"{path}: cut off or altered, {size} bytes instead of {entry.size}")
            if sha256(path) != entry.sha256:
                raise StorageError(f"{path}: altered, its sha256 is not the one in the manifest")
        except OSError as error:
            raise StorageError(f"{path}: cannot be read ({error.strerror or error})") from error
    return {"kind": kind, "files": {name: vars(entry) for name, entry in files.items()}, "about": about}


def remove(directory: str | os.PathLike) -> None:
    """Remove a directory so that, whatever interrupts it, no half of it is left under its name.

    Raises:
        OSError: it cannot be removed.
    """
    directory = Path(directory)
    gone = directory.with_name(f".{directory.name}.gone-{os.getpid()}")
    os.replace(directory, gone)
    shutil.rmtree(gone)


def sha256(path: str | os.PathLike) -> str:
    """Return the sha256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a file as `write_bytes` does, in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    """Write a file; what was there before stays until all of the new one is on the disk.

    Raises:
        StorageError: it cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        partial.write_bytes(data)
        _sync(partial)
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise StorageError(f"{path}: cannot be written ({error.strerror or error}); nothing was changed") from error


def ensure_writable(directory: str | os.PathLike) -> Path:
    """Create a directory if need be and prove that a file can be written there.

    Raises:
        StorageError: it cannot be created or written; says why.
    """
    directory = Path(directory)
    probe = directory / f".write-probe-{os.getpid()}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)  # a run that starts in this directory may have cleared it away
    except OSError as error:
        reason = "it is a link to what is not there" if directory.is_symlink() else error.strerror or error
        if directory.exists() and not directory.is_dir():
            reason = "it is a file"
        raise StorageError(f"{directory}: cannot be written ({reason}); choose another directory") from error
    return directory


def _free_bytes(directory: Path) -> float:
    """The space that this user can fill; infinity where the file system does not know."""
    status = os.statvfs(directory)
    if not status.f_blocks:
        return math.inf
    return status.f_frsize * (status.f_bavail if os.geteuid() else status.f_bfree)


def _free(directory: Path) -> str:
    try:
        free_bytes = _free_bytes(directory)
    except OSError as error:
        return f"what is free is not known ({error.strerror})"
    return "what is free is not known" if math.isinf(free_bytes) else f"{free_bytes:,.0f} are free"


def _seal(directory: Path, kind: str, digests: Mapping[str, str], about: Mapping[str, Any]) -> None:
    entries = {}
    for path in sorted(directory.iterdir()):
        _sync(path)
        entries[path.name] = Entry(path.stat().st_size, digests.get(path.name) or sha256(path))
    manifest = directory / MANIFEST
    manifest.write_text(manifest_text(kind, entries, about), encoding="utf-8")
    _sync(manifest)
    _sync(directory)


def _replace_directory(partial: Path, final: Path) -> None:
    # Where the system can, the two change places, and what was `final` goes away with `partial`.
    if final.exists() and exchange(final, partial):
        _sync(final.parent)
    else:
        _replace_in_two(partial, final)


def _replace_in_two(partial: Path, final: Path) -> None:
    # A directory cannot be renamed over a full one, so the old one steps aside for the instant between two renames.
    old = final.with_name(f".{final.name}.old-{os.getpid()}")
    if final.exists():
        os.replace(final, old)
    try:
        os.replace(partial, final)
    except OSError:
        if old.exists():
            os.replace(old, final)
        raise
    _sync(final.parent)  # before what it replaces is gone
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
