# SPDX-License-Identifier: Apache-2.0
"""Repeated augmentation: fewer samples in an epoch, each several times, differently changed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ppcls.config.registry import SAMPLERS, Count
from ppcls.data.position import Position
from ppcls.data.sampler import Sampler

_ROUNDED_TO = 256


@SAMPLERS.register
class RASampler(Sampler):
    """Each sample several times in a row, every time with other random numbers (Berman et al., arXiv:1902.05509).

    An epoch is as long as the data set, rounded down to a multiple of 256 where it is longer than that, and so
    reaches the first of the shuffled samples only. Neighbours go to different ranks, where there are several.

    Args:
        batch_size: samples per batch on each rank.
        shuffle: a new order each epoch; without it every epoch reaches the same samples.
        drop_last: leave the remainder out.
        num_repeats: how often each sample comes.
        num_samples: length of the data set.
        num_replicas: number of ranks.
        rank: this process, 0..num_replicas-1.
        seed: of the run.
        pad: true; an evaluation has every sample once.

    Raises:
        ValueError: ``batch_size`` below 1, fewer samples than ranks, or an evaluation.

    YAML::

        - RASampler: {batch_size: 64, shuffle: True, drop_last: False, num_repeats: 3}
    """

    def __init__(
        self,
        batch_size: Count,
        shuffle: bool = False,
        drop_last: bool = False,
        num_repeats: Count = 3,
        *,
        num_samples: int,
        num_replicas: int = 1,
        rank: int = 0,
        seed: int = 0,
        pad: bool = True,
    ) -> None:
        super().__init__(batch_size, drop_last, num_samples, num_replicas, rank, seed)
        if not pad:
            raise ValueError("RASampler repeats samples, so it is for training only; take DistributedBatchSampler")
        self.shuffle = shuffle
        self.num_repeats = num_repeats
        # PaddleClas: the whole is rounded down as well where that leaves nothing.
        rounded = num_samples // _ROUNDED_TO * _ROUNDED_TO or num_samples
        self.num_selected = rounded // num_replicas
        if not self.num_selected:
            raise ValueError(f"{num_samples} samples are too few for {num_replicas} ranks")

    def __len__(self) -> int:
        num_full, remainder = divmod(self.num_selected, self.batch_size)
        return num_full + (remainder > 0 and not self.drop_last)

    def _batches(self, epoch: int, start: int) -> Iterator[list[Position]]:
        order = self._order(epoch, self.shuffle)
        for batch in range(start, len(self)):
            head = batch * self.batch_size
            own = np.arange(head, min(head + self.batch_size, self.num_selected))
            turns = [divmod(place, self.num_repeats) for place in (own * self.num_replicas + self.rank).tolist()]
            yield [Position(epoch, int(order[turn]), repeat) for turn, repeat in turns]
