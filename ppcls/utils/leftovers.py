# SPDX-License-Identifier: Apache-2.0
"""What processes that were killed had not finished: half a directory goes, one that had stepped aside comes back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from ppcls.utils.errors import StorageError
from ppcls.utils.storage import UNFINISHED, verify


def clear_unfinished(directory: str | os.PathLike, is_own: Callable[[str], bool]) -> list[str]:
    """Remove what processes that were killed had not finished there; no other may be writing these names.

    A directory that had stepped aside for its successor, which then did not come, is put back.

    Args:
        directory: where to look.
        is_own: whether a name is one that the caller publishes there.

    Returns:
        The names of what is gone.

    Raises:
        OSError: it cannot be removed.
    """
    directory, gone = Path(directory), []
    for path in sorted(directory.iterdir()):
        match = UNFINISHED.fullmatch(path.name)
        if match is None or (match["name"] and not is_own(match["name"])):
            continue
        if not match["name"] or path.is_file():
            path.unlink(missing_ok=True)
            continue
        gone.append(path.name)
        if match["role"] != "old" or not _put_back(path, directory / match["name"]):
            shutil.rmtree(path)
    return gone


def clear_after_the_dead(final: str | os.PathLike) -> None:
    """Remove what processes of this machine that have ended left of publishing one directory, or put it back.

    What others are publishing under the same name, and everything else that lies beside it, stays; so does what
    cannot be changed.
    """
    final = Path(os.path.realpath(final))
    with suppress(OSError):
        for path, is_old in _of_the_dead(final):
            if not is_old or not _put_back(path, final):
                shutil.rmtree(path, ignore_errors=True)


def put_back(final: str | os.PathLike) -> None:
    """Put a directory back that stepped aside for a successor which never came; for readers, who remove nothing."""
    final = Path(os.path.realpath(final))
    with suppress(OSError):
        for path, is_old in _of_the_dead(final):
            if is_old:
                _put_back(path, final)


def _of_the_dead(final: Path) -> Iterator[tuple[Path, bool]]:
    """What ended processes left of publishing a directory, and whether it is what was there before."""
    for path in sorted(final.parent.iterdir()):
        match = UNFINISHED.fullmatch(path.name)
        if match and match["name"] == final.name and not _is_running(int(match["process"])):
            yield path, match["role"] == "old"


def _put_back(old: Path, final: Path) -> bool:
    if os.path.lexists(final) or not _verifies(old):
        return False
    os.replace(old, final)
    return True


def _verifies(directory: Path) -> bool:
    try:
        verify(directory)
    except StorageError:
        return False
    return True


def _is_running(process: int) -> bool:
    if process == os.getpid():
        return False  # in a container every process has this number; this one has nothing half done when it asks
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
