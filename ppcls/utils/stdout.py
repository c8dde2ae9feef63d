# SPDX-License-Identifier: Apache-2.0
"""What C libraries write to stdout, past Python."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def dropped() -> Iterator[None]:
    """Drop what is written to stdout within this block; nothing of Python's is to be written meanwhile."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # it is closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    try:
        yield
    finally:
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).fflush(None)  # C keeps what it has written until it is much
        os.dup2(kept, 1)
        os.close(kept)
