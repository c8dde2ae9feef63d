# SPDX-License-Identifier: Apache-2.0
"""What samplers give and workers take: which sample is to be made, and as which of its variants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ppcls.data.rng import SampleRng

_MAX_SAMPLES = 2**40


class Position(NamedTuple):
    """A sample in an epoch: all that a worker needs to know to make it.

    Attributes:
        epoch: from 1 on.
        index: of the sample in its data set.
        repeat: how often the sample came before in this epoch; each time it has random numbers of its own.
        size: width and height to make it in; None leaves them to the operations.
    """

    epoch: int
    index: int
    repeat: int = 0
    size: tuple[int, int] | None = None

    @property
    def draw(self) -> int:
        """What stands for the sample in `SampleRng` and `BatchRng`: its index, and its repetition above it."""
        return self.index + self.repeat * _MAX_SAMPLES


def positions_of(epoch: int, indices: np.ndarray) -> list[Position]:
    """Return the positions of these samples, int64 [N], as they come first in an epoch."""
    new = tuple.__new__  # a named tuple's own constructor takes three times as long
    return [new(Position, (epoch, index, 0, None)) for index in indices.tolist()]


def indices_and_draws(positions: Sequence[Position]) -> tuple[np.ndarray, np.ndarray]:
    """Return of all positions `Position.index` and `Position.draw`, each int64 [N]."""
    _, indices, repeats, _ = zip(*positions)
    columns = np.array(indices, np.int64), np.array(repeats, np.int64)
    return columns[0], columns[0] + columns[1] * _MAX_SAMPLES


def sample_at(dataset: Any, position: Position, seed: int, rng: SampleRng | None = None) -> tuple[np.ndarray, int]:
    """Make one sample: its image and its label.

    Args:
        dataset: has ``sample(index, rng)``, and ``sample(index, rng, size)`` where positions have a size.
        position: from a sampler.
        seed: of the run.
        rng: to draw from, in place of the sample's own.
    """
    rng = rng or SampleRng(seed, position.epoch, position.draw)
    if position.size is None:
        return dataset.sample(position.index, rng)
    return dataset.sample(position.index, rng, position.size)
