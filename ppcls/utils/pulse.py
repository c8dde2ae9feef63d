# SPDX-License-Identifier: Apache-2.0
"""Whether a run moves on: whatever makes progress beats, here and in processes that were forked to help."""

from __future__ import annotations

import mmap

import numpy as np

# Memory that workers share: an image read there is progress of the run. Beats of two processes at once may count as
# one, which does not matter: only whether the numbers change does.
_cells = np.frombuffer(mmap.mmap(-1, 16), np.int64)


def beat() -> None:
    """Say that something has been done: an image read, a file written."""
    _cells[0] += 1


def beat_batch() -> None:
    """Say that a batch has been trained on, or evaluated."""
    _cells[0] += 1
    _cells[1] += 1


def beats() -> int:
    """Return how much has been done so far; a number to compare with an earlier one."""
    return int(_cells[0])


def batches() -> int:
    """Return how many batches have been done so far."""
    return int(_cells[1])
