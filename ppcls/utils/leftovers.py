# SPDX-License-Identifier: Apache-2.0
"""What processes that were killed had not finished: half a directory goes, one that had stepped aside comes back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
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
        for path in sorted(final.parent.iterdir()):
            match = UNFINISHED.fullmatch(path.name)
            if match is None or match["name"] != final.name or _is_running(int(match["process"])):
                continue
            if match["role"] != "old" or not _put_back(path, final):
                shutil.rmtree(path, ignore_errors=True)


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
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
