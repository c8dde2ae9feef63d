# SPDX-License-Identifier: Apache-2.0
"""The last transforms of a model, which change each level by itself, done by looking levels up in a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from ppcls.data.transforms.transform import Transform

NUM_LEVELS = 256
TINY = 64 * 64 * 3
"""Below so many numbers a second way through the memory takes less time than the calls that it saves."""


class LevelTable:
    """What some transforms make of uint8 [H, W, 3], float32 [3, H, W], in a fraction of their time and to the bit.

    Args:
        ops: the transforms, which also take what the table does not.
        table: what they make of each level in each channel, float32 [3, 256].
    """

    def __init__(self, ops: Sequence[Transform], table: np.ndarray) -> None:
        self.ops = list(ops)
        self.rows = list(table)
        self.columns = np.ascontiguousarray(table.T[None])

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The image with the channels first.

        Raises:
            ValueError: it does not suit the transforms.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            return _one_by_one(self.ops, image)
        if image.size < TINY:
            return np.ascontiguousarray(cv2.LUT(image, self.columns).transpose(2, 0, 1))
        result = np.empty((3, *image.shape[:2]), np.float32)
        for plane, row, into in zip(cv2.split(image), self.rows, result):
            cv2.LUT(plane, row, into)
        return result


def with_table(transforms: Sequence[Any]) -> list[Any]:
    """The transforms, of which those at the end that a table can do are one; all of them as they are if none can."""
    first = len(transforms)
    while first and isinstance(transforms[first - 1], Transform) and transforms[first - 1].runs_on_device:
        first -= 1
    before, last = list(transforms[:first]), list(transforms[first:])
    table = _table(last)
    return before + last if table is None else [*before, LevelTable(last, table)]


def _one_by_one(ops: Sequence[Transform], image: np.ndarray) -> np.ndarray:
    for op in ops:
        image = op(image)
    return image


def _table(ops: Sequence[Transform]) -> np.ndarray | None:
    """What the transforms make of an image that has each level in each channel; None if it is no [3, H, W]."""
    levels = np.arange(NUM_LEVELS, dtype=np.uint8)
    try:
        made = _one_by_one(ops, np.broadcast_to(levels[:, None, None], (NUM_LEVELS, 1, 3)).copy())
    except ValueError:
        return None  # they will say so of every image
    if made.dtype != np.float32 or made.shape != (3, NUM_LEVELS, 1):
        return None
    return np.ascontiguousarray(made[:, :, 0])
