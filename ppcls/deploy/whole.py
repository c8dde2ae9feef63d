# SPDX-License-Identifier: Apache-2.0
"""Reading the files of a bundle that may be replaced at any moment: all are of one export."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ppcls.utils.errors import StorageError
from ppcls.utils.manifest import MANIFEST

T = TypeVar("T")
NUM_TRIES = 5


def read_whole(directory: str | os.PathLike, read: Callable[[], T]) -> T:
    """What ``read`` gives; it is called again when the bundle was replaced meanwhile.

    An export replaces a bundle in one step, but a reader opens one file after the other.

    Raises:
        StorageError: it was replaced at every try.
    """
    for _ in range(NUM_TRIES):
        before = _manifest(directory)
        try:
            result = read()
        except Exception:  # whatever a half replaced bundle leads to; what comes of one that stayed is raised
            if _manifest(directory) == before:
                raise
            continue
        if _manifest(directory) == before:
            return result
    raise StorageError(f"{directory}: was replaced {NUM_TRIES} times while it was read; try again")


def _manifest(directory: str | os.PathLike) -> bytes | None:
    """The text that all files of a bundle follow from."""
    path = Path(directory, MANIFEST)
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError:
        return None
