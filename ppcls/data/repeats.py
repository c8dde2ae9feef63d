# SPDX-License-Identifier: Apache-2.0
"""What occurs more than once, among numbers that stand for paths or for the contents of files."""

from __future__ import annotations

import numpy as np


def repeats(keys: np.ndarray) -> list[np.ndarray]:
    """Return the positions of each number that occurs more than once, ascending, by their first position.

    Args:
        keys: uint64 [N].
    """
    ordered = np.sort(keys)
    is_repeated = ordered[1:] == ordered[:-1]
    if not is_repeated.any():
        return []
    found = np.flatnonzero(np.isin(keys, ordered[1:][is_repeated]))
    found = found[np.argsort(keys[found], kind="stable")]
    groups = np.split(found, np.flatnonzero(np.diff(keys[found])) + 1)
    return sorted(groups, key=lambda group: int(group[0]))


def shared(keys: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which positions of ``others`` hold a number of ``keys`` too, and the first position that it has there."""
    if not len(keys):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    order = np.argsort(keys, kind="stable")
    places = order[np.minimum(np.searchsorted(keys, others, sorter=order), len(keys) - 1)]
    found = np.flatnonzero(keys[places] == others)
    return found, places[found]
