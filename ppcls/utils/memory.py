# SPDX-License-Identifier: Apache-2.0
"""How much memory a run takes."""

from __future__ import annotations

import ctypes
import sys

import paddle

_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
"""What glibc's ``mallopt`` calls these (malloc.h)."""
_LARGE = 2**28
"""Bytes: more than any image or activation that comes and goes."""


def peak_memory_mb() -> float:
    """The largest memory so far in megabytes: of the GPU when computing there, otherwise of this process."""
    if paddle.get_device().startswith("gpu"):
        return paddle.device.cuda.max_memory_allocated() / 1e6
    if sys.platform == "win32":
        return float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees for what it allocates next, and say whether it does.

    The C library of Linux hands an image's or a tensor's memory back to the system, which has to clear every page of
    it for the next one: a tenth of the time that decoding takes. Elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    return bool(library.mallopt(_MMAP_THRESHOLD, _LARGE) and library.mallopt(_TRIM_THRESHOLD, _LARGE))
