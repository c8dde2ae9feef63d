# SPDX-License-Identifier: Apache-2.0
"""How much memory a run takes."""

from __future__ import annotations

import sys

import paddle


def peak_memory_mb() -> float:
    """The largest memory so far in megabytes: of the GPU when computing there, otherwise of this process."""
    if paddle.get_device().startswith("gpu"):
        return paddle.device.cuda.max_memory_allocated() / 1e6
    if sys.platform == "win32":
        return float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
