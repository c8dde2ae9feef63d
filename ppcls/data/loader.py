# SPDX-License-Identifier: Apache-2.0
"""From a data set and a sampler to batches of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import paddle

from ppcls.data.bad_samples import BadSamples, place_of
from ppcls.data.batch_maker import BadBatch, BatchMaker, Made, OnBad
from ppcls.data.position import Position
from ppcls.data.sampler import DistributedBatchSampler
from ppcls.data.worker import can_fork
from ppcls.data.worker_process import Failure
from ppcls.data.workers import WorkerPool
from ppcls.utils import dist, pulse
from ppcls.utils.errors import DataError
from ppcls.utils.logger import logger
from ppcls.utils.machine import usable_cores
from ppcls.utils.memory import keep_freed_memory

Batch = tuple[paddle.Tensor, paddle.Tensor]
"""(images [N, C, H, W] of the dtype that the operations end in, labels int64 [N])."""

MakeTensors = Callable[[np.ndarray, np.ndarray, int, int], Batch]
"""(images, labels, epoch from 1 on, batch of the epoch from 0 on) -> tensors; it must copy what it keeps."""

MAX_DEFAULT_WORKERS = 8
SAMPLES_AT_ONCE = 512
"""Of those small images that a data set makes many at a time."""


class Loader:
    """Batches of a data set in the sampler's order; the same ones for any number of workers.

    Worker processes are started by the first iteration and serve the later ones too, until `close`. One that
    dies, or hangs, is named with the sample it was at, and replaced; its batches are made again. An exception in
    a worker is raised here, with its own type and message. An iteration ends when the next one begins.

    Args:
        dataset: has ``len`` and ``sample(index, rng) -> (image, label)``.
        sampler: gives lists of `Position`.
        num_workers: processes that read and transform; 0 does it in this one, when a batch is asked for. None:
            none for a data set that makes many samples at a time, `default_workers` for any other.
        use_shared_memory: hand batches over in shared memory, otherwise through a pipe.
        seed: of the run; with epoch and index it determines what the random operations draw.
        prefetch_factor: batches that each worker makes ahead.
        timeout: seconds that one sample may take in a worker.
        finish: makes tensors of the arrays of a batch, in this process.
        bad_samples: counts samples that cannot be read and says when they are too many: in training others take
            their places, in evaluation they are left out. None: the first one is an error.
        is_train: whether this is for training.
    """

    def __init__(
        self,
        dataset: Any,
        sampler: DistributedBatchSampler,
        num_workers: int | None = 0,
        use_shared_memory: bool = True,
        seed: int = 0,
        prefetch_factor: int = 2,
        timeout: float = 120,
        finish: MakeTensors | None = None,
        bad_samples: BadSamples | None = None,
        is_train: bool = True,
    ) -> None:
        self.dataset = dataset
        self.sampler = sampler
        if num_workers is None:
            num_workers = 0 if getattr(dataset, "makes_batches", False) else default_workers()
        # A worker costs more to start than a batch to make: never more workers than batches.
        self.num_workers = min(num_workers, len(sampler))
        if self.num_workers and not can_fork():
            logger.warning("num_workers is %d, but worker processes need Linux: none are started", self.num_workers)
            self.num_workers = 0
        self.use_shared_memory = use_shared_memory
        self.seed = seed
        self.prefetch_factor = prefetch_factor
        self.timeout = timeout
        self.finish = finish or _to_tensors
        self.bad_samples = bad_samples
        self.num_left_out = 0
        on_bad: OnBad = "error" if bad_samples is None else "replace" if is_train else "leave_out"
        self.make = BatchMaker(dataset, seed, on_bad)
        self._pool: WorkerPool | None = None

    @property
    def num_samples(self) -> int:
        """Length of the data set, over all ranks."""
        return len(self.dataset)

    @property
    def batch_size(self) -> int:
        """Samples per batch on this rank; the last batch may have fewer."""
        return self.sampler.batch_size

    @property
    def pids(self) -> list[int]:
        """The worker processes that there are now."""
        return self._pool.pids if self._pool is not None else []

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 1 on, that the next iteration gives."""
        self.sampler.set_epoch(epoch)

    def samples_of(self, batch: int) -> list[str]:
        """Return the names, or files, of the samples of a batch (from 1 on) of the epoch that is set now.

        A sample that could not be read, and whose place another has taken, is named all the same.
        """
        positions = next(self.sampler.iterate(batch - 1))
        return [_called(self.dataset, position.index) for position in positions]

    def close(self) -> None:
        """End the worker processes; another iteration would start new ones."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        return self.iterate()

    def iterate(self, start: int = 0) -> Iterator[Batch]:
        """Return the batches of the epoch that is set now, from batch ``start`` (from 0) on.

        Batches whose samples are all left out do not occur. ``num_left_out`` counts the samples left out so far.
        """
        self.num_left_out = 0
        tasks, numbers = self.sampler.iterate(start), count(start)

        def finish(positions: list[Position], made: Made | Failure) -> Batch | None:
            return self._finished(positions, made, next(numbers))

        if self.num_workers:
            batches = self._workers().run(tasks, finish)
        else:
            batches = (finish(positions, made) for positions, made in self._make_here(tasks))
        return _counted(batch for batch in batches if batch is not None)

    def _workers(self) -> WorkerPool:
        if self._pool is None or not self._pool.is_open:
            self._pool = WorkerPool(
                self.make,
                self.num_workers,
                self.prefetch_factor,
                self.batch_size,
                self.timeout,
                self.use_shared_memory,
                # Not methods of this: a pool ends its processes when it is forgotten together with its loader.
                partial(_named, self.dataset),
                partial(_take_deadly, self.bad_samples),
            )
        return self._pool

    def _make_here(self, tasks: Iterator[list[Position]]) -> Iterator[tuple[list[Position], Made]]:
        keep_freed_memory()
        if not getattr(self.dataset, "makes_batches", False):
            yield from ((positions, self._made_here(positions)) for positions in tasks)
            return
        # Several hundred small images at once cost little more than one hundred.
        for group in _groups(tasks, SAMPLES_AT_ONCE):
            made = self._made_here([position for positions in group for position in positions])
            assert made.images is not None and made.labels is not None
            ends = np.cumsum([len(positions) for positions in group])[:-1]
            for positions, *arrays in zip(group, np.split(made.images, ends), np.split(made.labels, ends)):
                yield positions, Made(*arrays)

    def _made_here(self, positions: list[Position]) -> Made:
        try:
            return self.make(positions)
        except BadBatch as failure:
            self._note(failure.bad)
            raise failure.error from failure

    def _finished(self, positions: list[Position], made: Made | Failure, number: int) -> Batch | None:
        self._note(made.bad)
        if isinstance(made, Failure):
            raise made.error from RuntimeError(f"in a worker process:\n{made.trace}")
        self.num_left_out += len(positions) - (0 if made.images is None else len(made.images))
        if made.images is None or made.labels is None:
            return None
        return self.finish(made.images, made.labels, positions[0].epoch, number)

    def _note(self, bad: list[tuple[int, str]]) -> None:
        if self.bad_samples is not None:
            for index, reason in bad:
                self.bad_samples.note(index, reason)


def _counted(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches; each counts as done when the next one is asked for."""
    for batch in batches:
        yield batch
        pulse.beat_batch()


def _groups(tasks: Iterator[list[Position]], num_samples: int) -> Iterator[list[list[Position]]]:
    """Batches in groups of so many samples or a few more; what is left makes the last group."""
    group: list[list[Position]] = []
    for positions in tasks:
        group.append(positions)
        if sum(map(len, group)) >= num_samples:
            yield group
            group = []
    if group:
        yield group


def _called(dataset: Any, index: int) -> str:
    return place_of(dataset, index, "path") or place_of(dataset, index, "where") or f"sample {index}"


def _named(dataset: Any, index: int, problem: str) -> str:
    return dataset.named(index, problem) if hasattr(dataset, "named") else f"sample {index}: {problem}"


def _take_deadly(bad_samples: BadSamples | None, index: int, problem: str) -> None:
    if bad_samples is None:
        raise DataError(f"{problem}; remove it, or set on_bad_sample to skip")
    bad_samples.note(index, problem)


def default_workers() -> int:
    """Return how many workers to start where nobody says: one for each core of this process, and not more than 8.

    The cores are those that it may use, shared with the other processes of the run on this machine; a single core
    gains nothing by workers.
    """
    cores = usable_cores()
    return 0 if cores == 1 or not can_fork() else min(max(cores // dist.processes_here(), 1), MAX_DEFAULT_WORKERS)


def _to_tensors(images: np.ndarray, labels: np.ndarray, epoch: int, batch: int) -> Batch:
    return paddle.to_tensor(images), paddle.to_tensor(labels)
