# SPDX-License-Identifier: Apache-2.0
"""Batches of a few classes with several samples of each, for losses that compare samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from ppcls.config.registry import SAMPLERS, Count
from ppcls.data.position import Position
from ppcls.data.sampler import Sampler, raw_words
from ppcls.utils.logger import logger

_LABELS, _SAMPLES = 2, 3


@SAMPLERS.register
class PKSampler(Sampler):
    """P classes at random and K samples of each: a batch of ``P * K`` (Hermans et al., arXiv:1703.07737).

    No class comes twice in a batch, and no sample unless its class has fewer than K. The batches of all ranks
    in one step have different classes while there are enough of them.

    Args:
        batch_size: samples per batch on each rank, a multiple of ``sample_per_id``.
        sample_per_id: K, the samples of each class in a batch.
        shuffle: accepted for PaddleClas's files; what is drawn is random either way.
        drop_last: whether the remainder of the data set does without a batch; every batch is full.
        id_list: first and last label of one or more ranges, ``[first, last, first, last, ...]``.
        ratio: for each range, how many times as often its classes come as they would.
        sample_method: how often a class comes: ``sample_avg_prob`` by its number of samples, ``id_avg_prob`` as
            often as any other.
        total_epochs: for a schedule that is not supported; leave it out.
        num_samples: length of the data set.
        labels: of every sample, int64 [N].
        num_replicas: number of ranks.
        rank: this process, 0..num_replicas-1.
        seed: of the run.
        pad: true; an evaluation has every sample once.

    Raises:
        ValueError: ``batch_size`` is not a multiple of ``sample_per_id``, there are fewer than P classes to draw,
            ``id_list`` and ``ratio`` do not fit together, or an evaluation.

    YAML::

        - PKSampler: {batch_size: 128, sample_per_id: 2, drop_last: True, sample_method: id_avg_prob}
    """

    def __init__(
        self,
        batch_size: Count,
        sample_per_id: Count,
        shuffle: bool = True,
        drop_last: bool = True,
        id_list: list[int] | None = None,
        ratio: list[float] | None = None,
        sample_method: Literal["sample_avg_prob", "id_avg_prob"] = "sample_avg_prob",
        total_epochs: Literal[0] = 0,
        *,
        num_samples: int,
        labels: np.ndarray,
        num_replicas: int = 1,
        rank: int = 0,
        seed: int = 0,
        pad: bool = True,
    ) -> None:
        super().__init__(batch_size, drop_last, num_samples, num_replicas, rank, seed)
        if not pad:
            raise ValueError("PKSampler draws samples, so it is for training only; take DistributedBatchSampler")
        if batch_size % sample_per_id:
            raise ValueError(f"batch_size must be a multiple of sample_per_id; got {batch_size} and {sample_per_id}")
        if not shuffle:
            logger.warning("PKSampler: shuffle has no effect, batches are drawn at random")
        self.sample_per_id = sample_per_id
        self.classes_per_batch = batch_size // sample_per_id
        known, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
        self._members = np.split(np.argsort(inverse, kind="stable"), np.cumsum(counts)[:-1])
        self.weights = _weights(known, counts, id_list or [], ratio or [], sample_method)
        num_possible = int((self.weights > 0).sum())
        if num_possible < self.classes_per_batch:
            raise ValueError(
                f"a batch takes {self.classes_per_batch} classes, but there are only {num_possible} to draw from; "
                "make batch_size smaller or sample_per_id larger"
            )
        # So many ranks share one drawing of classes, without one that comes twice.
        self._ranks_per_drawing = min(num_possible // self.classes_per_batch, num_replicas)

    def __len__(self) -> int:
        num_full, remainder = divmod(self.num_samples, self._global_batch_size)
        return num_full + (remainder > 0 and not self.drop_last)

    def _batches(self, epoch: int, start: int) -> Iterator[list[Position]]:
        for batch in range(start, len(self)):
            yield [Position(epoch, index) for label in self._draw_labels(epoch, batch) for index in label]

    def _draw_labels(self, epoch: int, batch: int) -> Iterator[list[int]]:
        """The samples of one class after the other."""
        drawing, place = divmod(self.rank, self._ranks_per_drawing)
        words = raw_words(self.seed, epoch, (drawing, _LABELS, batch), len(self.weights))
        # The smallest of exponential waiting times: drawn without replacement, each as likely as its weight says
        # (Efraimidis and Spirakis, 2006).
        uniform = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
        with np.errstate(divide="ignore", invalid="ignore"):
            waiting = -np.log1p(-uniform) / self.weights
        first = place * self.classes_per_batch
        chosen = np.argsort(waiting, kind="stable")[first : first + self.classes_per_batch]
        for number, label in enumerate(chosen.tolist(), self.rank * self.classes_per_batch):
            yield self._draw_members(epoch, batch, number, self._members[label])

    def _draw_members(self, epoch: int, batch: int, number: int, members: np.ndarray) -> list[int]:
        words = raw_words(self.seed, epoch, (number, _SAMPLES, batch), max(len(members), self.sample_per_id))
        if len(members) < self.sample_per_id:
            return members[(words % np.uint64(len(members))).astype(np.int64)].tolist()
        return members[np.argsort(words, kind="stable")[: self.sample_per_id]].tolist()


def _weights(
    known: np.ndarray, counts: np.ndarray, id_list: list[int], ratio: list[float], sample_method: str
) -> np.ndarray:
    """How likely each class is, compared with the others: float64."""
    if len(id_list) != 2 * len(ratio):
        raise ValueError(f"id_list takes two labels for each ratio; got {len(id_list)} labels and {len(ratio)} ratios")
    if any(value < 0 for value in ratio):
        raise ValueError(f"ratio must be 0 or more; got {ratio}")
    weights = np.ones(len(known)) if sample_method == "id_avg_prob" else counts.astype(np.float64)
    factors = np.ones(len(known))
    # Where ranges overlap, the first one counts.
    for first, last, factor in [*zip(id_list[::2], id_list[1::2], ratio)][::-1]:
        factors[(known >= first) & (known <= last)] = factor
    return weights * factors
