# SPDX-License-Identifier: Apache-2.0
"""Operations as augmentation policies list them: how large the argument is, and whether its sign is drawn."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ppcls.data.rng import SampleRng
from ppcls.data.transforms.augment_ops import Step


class Choice(NamedTuple):
    """An operation with the argument ``around + size``, or ``around - size`` for every other image if ``signed``."""

    name: str
    size: float | None = None
    signed: bool = False
    around: float = 0
    interpolation: str = "nearest"

    def draw(self, rng: SampleRng, image: np.ndarray) -> Step:
        """Return the operation as one image gets it."""
        if self.size is None:
            return Step(self.name)
        size = -self.size if self.signed and rng.integers(0, 2) == 0 else self.size
        return Step(self.name, self.around + size, self.interpolation)


class Hole(NamedTuple):
    """A square of ``2 half`` pixels a side, cut out anywhere in the image and filled with a grey."""

    half: int
    grey: int

    def draw(self, rng: SampleRng, image: np.ndarray) -> Step:
        """Return the square for one image."""
        row = int(rng.integers(0, image.shape[0] + 1))
        column = int(rng.integers(0, image.shape[1] + 1))
        return Step("cutout", (row, column, self.half, self.grey))
