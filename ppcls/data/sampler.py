# SPDX-License-Identifier: Apache-2.0
"""Which samples make up which batch.

The order of an epoch is a function of (seed, epoch). It depends neither on the number of workers or ranks, nor on
where a run was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ppcls.config.registry import SAMPLERS, Count
from ppcls.data.position import Position, positions_of

_WORD = 2**64 - 1


def epoch_order(seed: int, epoch: int, num_samples: int) -> np.ndarray:
    """Return 0..num_samples-1 in the order of this epoch, int64.

    Sorting raw 64-bit words keeps the order the same under every NumPy; its ``permutation`` may change.
    """
    return np.argsort(raw_words(seed, epoch, (0, 1, 0), num_samples), kind="stable")


def raw_words(seed: int, epoch: int, place: tuple[int, int, int], num: int) -> np.ndarray:
    """Return the random words of one place in an epoch, uint64 [num].

    Args:
        seed: of the run.
        epoch: from 1 on.
        place: what tells it apart: a number, a purpose, a batch.
        num: how many words.
    """
    key = np.array([seed & _WORD, epoch & _WORD], np.uint64)
    return np.random.Philox(key=key, counter=np.array([0, *place], np.uint64)).random_raw(num)


class Sampler:
    """Batches of positions for one rank; a kind of sampler says which.

    Args:
        batch_size: samples per batch on each rank.
        drop_last: leave the remainder out.
        num_samples: length of the data set.
        num_replicas: number of ranks.
        rank: this process, 0..num_replicas-1.
        seed: of the run.

    Attributes:
        gives_sizes: whether positions say in which size a sample is to be made.

    Raises:
        ValueError: ``batch_size`` below 1, ``rank`` outside its range, or no samples.
    """

    gives_sizes = False

    def __init__(
        self, batch_size: int, drop_last: bool, num_samples: int, num_replicas: int, rank: int, seed: int
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {batch_size}")
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1; got {num_samples}")
        if not 0 <= rank < num_replicas:
            raise ValueError(f"rank must be within 0..{num_replicas - 1}; got {rank}")
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.num_samples = num_samples
        self.num_replicas = num_replicas
        self.rank = rank
        self.seed = seed
        self.epoch = 1

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 1 on, that the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        raise NotImplementedError

    def __iter__(self) -> Iterator[list[Position]]:
        return self.iterate()

    def iterate(self, start: int = 0) -> Iterator[list[Position]]:
        """Return the batches of the epoch that is set now, from batch ``start`` (from 0) on."""
        return self._batches(self.epoch, start)

    def _batches(self, epoch: int, start: int) -> Iterator[list[Position]]:
        raise NotImplementedError

    @property
    def _global_batch_size(self) -> int:
        return self.batch_size * self.num_replicas

    def _order(self, epoch: int, shuffle: bool) -> np.ndarray:
        return epoch_order(self.seed, epoch, self.num_samples) if shuffle else np.arange(self.num_samples)


@SAMPLERS.register
class DistributedBatchSampler(Sampler):
    """Every sample once, in batches of positions for one rank.

    ``batch_size * num_replicas`` consecutive samples of the global order are one step of all ranks;
    rank r takes the r-th ``batch_size`` of them. The remainder is divided evenly.

    Args:
        batch_size: samples per batch on each rank.
        shuffle: a new order each epoch; otherwise that of the list file.
        drop_last: leave the remainder out.
        num_samples: length of the data set.
        num_replicas: number of ranks.
        rank: this process, 0..num_replicas-1.
        seed: of the run.
        pad: for training: repeat samples from the head, so that the remainder divides by the ranks
            and all have as many batches of as many samples. Without it, for evaluation, the ranks
            have every sample exactly once between them, and one may have a batch fewer.

    Raises:
        ValueError: ``batch_size`` below 1, ``rank`` outside its range, or no samples.

    YAML::

        - DistributedBatchSampler: {batch_size: 64, shuffle: True, drop_last: False}
    """

    def __init__(
        self,
        batch_size: Count,
        shuffle: bool = False,
        drop_last: bool = False,
        *,
        num_samples: int,
        num_replicas: int = 1,
        rank: int = 0,
        seed: int = 0,
        pad: bool = True,
    ) -> None:
        super().__init__(batch_size, drop_last, num_samples, num_replicas, rank, seed)
        self.shuffle = shuffle
        self.pad = pad

    def __len__(self) -> int:
        num_full, remainder = divmod(self.num_samples, self._global_batch_size)
        return num_full + (len(self._share(np.arange(remainder), np.arange(self.num_samples))) > 0)

    def _batches(self, epoch: int, start: int) -> Iterator[list[Position]]:
        order = self._order(epoch, self.shuffle)
        num_full = self.num_samples // self._global_batch_size
        for batch in range(start, len(self)):
            if batch < num_full:
                head = batch * self._global_batch_size + self.rank * self.batch_size
                chosen = order[head : head + self.batch_size]
            else:
                chosen = self._share(order[num_full * self._global_batch_size :], order)
            yield positions_of(epoch, chosen)

    def _share(self, remainder: np.ndarray, order: np.ndarray) -> np.ndarray:
        """Return what this rank takes of the samples that do not fill a global batch."""
        if self.drop_last:
            return remainder[:0]
        if self.pad:
            missing = -len(remainder) % self.num_replicas
            remainder = np.concatenate([remainder, np.resize(order, missing)])
        return np.array_split(remainder, self.num_replicas)[self.rank]


@SAMPLERS.register
class BatchSampler(DistributedBatchSampler):
    """`DistributedBatchSampler` under the name of PaddleClas's sampler for one process.

    YAML::

        - BatchSampler: {batch_size: 64, shuffle: True, drop_last: False}
    """
