# SPDX-License-Identifier: Apache-2.0
"""What C libraries write to stderr, past Python."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_descriptors: tuple[int, int] | None = None


def allow_quiet() -> None:
    """Let `quiet` work in this process; for one in which no other thread has anything to say meanwhile."""
    global _descriptors
    if _descriptors is None:
        _descriptors = os.dup(2), os.open(os.devnull, os.O_WRONLY)


def can_be_quiet() -> bool:
    """Whether `allow_quiet` was called."""
    return _descriptors is not None


def keep_for_python() -> None:
    """Drop what is written past Python from now on, in all threads; Python's own lines and the stacks of a crash come.

    For a process whose images come from strangers: libpng and libjpeg say something of every damaged one.
    """
    if sys.stderr is None:
        return
    kept = os.fdopen(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")
    sys.stderr.flush()
    sys.stderr = kept
    faulthandler.enable(kept)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what is written to stderr within this block."""
    assert _descriptors is not None
    stderr, nowhere = _descriptors
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
