# SPDX-License-Identifier: Apache-2.0
"""Directories that one run writes to at a time."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ppcls.utils.errors import StorageError

logger = logging.getLogger("ppcls")

LOCK = ".lock"

_locks: dict[str, IO[bytes]] = {}
"""The open lock file of each directory that this process holds."""


def _let_go() -> None:
    while _locks:
        _locks.popitem()[1].close()


# A lock lasts until the last process with the open file has closed it, and workers may outlive a run by a moment.
os.register_at_fork(after_in_child=_let_go)


@contextmanager
def held(directory: str | os.PathLike) -> Iterator[None]:
    """Keep other runs from writing to a directory until the block ends; the system lets go of it when a run dies.

    Raises:
        StorageError: another run holds it.
    """
    name = os.path.realpath(directory)
    file = _locked(directory)
    _locks[name] = file
    try:
        yield
    finally:
        _locks.pop(name, file).close()


def hold_again(directory: str | os.PathLike) -> bool:
    """Make a directory again that was removed while it was held, and hold it; return whether that was so.

    Raises:
        OSError: it cannot be made.
        StorageError: another run holds what is there now.
    """
    name = os.path.realpath(directory)
    former = _locks.get(name)
    if former is None or _is_there(former, Path(directory) / LOCK):
        return False
    Path(directory).mkdir(parents=True, exist_ok=True)
    _locks[name] = _locked(directory)
    former.close()
    return True


def _locked(directory: str | os.PathLike) -> IO[bytes]:
    file = open(Path(directory) / LOCK, "a+b", buffering=0)  # noqa: SIM115 (open as long as it is held)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with file:
            raise StorageError(
                f"{directory}: another run is writing there{_holder(file)}; wait for it, or choose another directory"
            ) from None
    except OSError as error:
        logger.warning(
            "%s: is on a file system without locks (%s); make sure that no other run writes there",
            directory,
            error.strerror or error,
        )
    # For people only: what counts is the lock, which ends with its process.
    with suppress(OSError):
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return file


def _holder(file: IO[bytes]) -> str:
    file.seek(0)
    text = file.read(200).decode("utf-8", "replace").strip()
    return f" ({text})" if text.isprintable() and text else ""


def _is_there(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False
