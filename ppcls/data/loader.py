# SPDX-License-Identifier: Apache-2.0
"""From a data set and a sampler to batches of tensors."""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import paddle

from ppcls.data.position import Position, sample_at
from ppcls.data.sampler import DistributedBatchSampler
from ppcls.utils.errors import DataError

Batch = tuple[paddle.Tensor, paddle.Tensor]
"""(images [N, C, H, W] of the dtype that the operations end in, labels int64 [N])."""


SHUTDOWN_SECONDS = 5
"""How long the end of an iteration waits for a worker that is still busy; it then ends by itself."""


class Loader:
    """Batches of a data set in the sampler's order; the same ones for any number of workers.

    Each iteration starts its own workers and ends them, also when it is left early. An exception in
    a worker is raised here, with its own type and message.

    Args:
        dataset: has ``len`` and ``sample(index, rng) -> (image [C, H, W], label)``.
        sampler: gives lists of `Position`.
        num_workers: processes that read and transform; 0 does it in this one, when a batch is asked for.
        use_shared_memory: hand batches over in shared memory, otherwise through a pipe.
        seed: of the run; with epoch and index it determines what the random operations draw.
    """

    def __init__(
        self,
        dataset: Any,
        sampler: DistributedBatchSampler,
        num_workers: int = 0,
        use_shared_memory: bool = True,
        seed: int = 0,
    ) -> None:
        self.dataset = dataset
        self.sampler = sampler
        self.num_workers = num_workers
        self.use_shared_memory = use_shared_memory
        self.seed = seed

    @property
    def num_samples(self) -> int:
        """Length of the data set, over all ranks."""
        return len(self.dataset)

    @property
    def batch_size(self) -> int:
        """Samples per batch on this rank; the last batch may have fewer."""
        return self.sampler.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 1 on, that the next iteration gives."""
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        return self.iterate()

    def iterate(self, start: int = 0) -> Iterator[Batch]:
        """Return the batches of the epoch that is set now, from batch ``start`` (from 0) on."""
        num_batches = max(len(self.sampler) - start, 0)
        batches = _Batches(self.sampler.iterate(start), num_batches)
        # A worker costs more to start than a batch to make: never more workers than batches.
        num_workers = min(self.num_workers, num_batches)
        return self._iterate_in_workers(batches, num_workers) if num_workers else self._iterate_here(batches)

    def _iterate_here(self, batches: _Batches) -> Iterator[Batch]:
        samples = _Samples(self.dataset, self.seed)
        for positions in batches:
            images, labels = _stacked([samples.make(position) for position in positions])
            yield paddle.to_tensor(images), paddle.to_tensor(labels)

    def _iterate_in_workers(self, batches: _Batches, num_workers: int) -> Iterator[Batch]:
        loader = paddle.io.DataLoader(
            _Samples(self.dataset, self.seed),
            batch_sampler=batches,
            collate_fn=_collate,
            num_workers=num_workers,
            use_shared_memory=self.use_shared_memory,
            worker_init_fn=_init_worker,
        )
        with _garbage_kept():
            iterator = iter(loader)
        try:
            for images, labels, failure in iterator:
                if failure is not None:
                    raise failure.error from RuntimeError(f"in a worker process:\n{failure.trace}")
                yield images, labels
        finally:
            # Paddle 3.3.1: a thread holds the iterator, so the workers of one left early would never end.
            iterator._try_shutdown_all(SHUTDOWN_SECONDS)


@contextmanager
def _garbage_kept() -> Iterator[None]:
    """Fork within this block: the workers never collect what was alive, or garbage, in the parent.

    Paddle 3.3.1: collected in a worker, a queue that a thread of the parent waits on is waited for
    for ever (``pthread_cond_destroy``), and with it the first batch.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@dataclass(frozen=True)
class _Failure:
    """An exception on its way from a worker: Paddle would make text of it."""

    error: Exception
    trace: str

    @classmethod
    def of(cls, error: Exception) -> _Failure:
        return cls(error if _can_travel(error) else RuntimeError(f"{type(error).__name__}: {error}"), _trace(error))


def _trace(error: Exception) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def _can_travel(error: Exception) -> bool:
    """Whether another process can rebuild the exception: of an importable class, and made of plain values.

    One that cannot would be lost without a word, and the batch waited for without end.
    """
    module = sys.modules.get(type(error).__module__)
    plain = (str, bytes, int, float, list, type(None))
    values = [*error.args, *vars(error).values()]
    return getattr(module, type(error).__qualname__, None) is type(error) and all(isinstance(v, plain) for v in values)


class _Samples(paddle.io.Dataset):
    """What runs in a worker: position -> sample, or the failure to make it."""

    def __init__(self, dataset: Any, seed: int) -> None:
        super().__init__()
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def make(self, position: Position) -> tuple[np.ndarray, int]:
        return sample_at(self.dataset, position, self.seed)

    def __getitem__(self, position: Position) -> tuple[np.ndarray, int] | _Failure:
        try:
            return self.make(position)
        except Exception as error:  # noqa: BLE001 (it is raised in the parent)
            return _Failure.of(error)


class _Batches:
    """What Paddle's loader takes for a batch sampler: an iterable with a length."""

    def __init__(self, positions: Iterator[list[Position]], num_batches: int) -> None:
        self._positions = positions
        self._num_batches = num_batches

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[list[Position]]:
        return self._positions


def _collate(samples: list) -> list:
    """Return [images, labels, None], or with the first failure among the samples in place of None."""
    failure = next((sample for sample in samples if isinstance(sample, _Failure)), None)
    if failure is None:
        try:
            return [*_stacked(samples), None]
        except DataError as error:
            failure = _Failure.of(error)
    # Paddle passes what is no array on as it is, beside the arrays of a batch.
    return [np.zeros(1, np.uint8), np.zeros(1, np.int64), failure]


def _stacked(samples: list[tuple[np.ndarray, int]]) -> tuple[np.ndarray, np.ndarray]:
    images, labels = zip(*samples)
    shapes = sorted({image.shape for image in images})
    if len(shapes) > 1:
        raise DataError(
            f"the images of one batch differ in shape: {' and '.join(str(list(shape)) for shape in shapes[:2])}; "
            "end transform_ops with operations of a fixed size, such as ResizeImage: {size: 224}"
        )
    return np.stack(images), np.array(labels, np.int64)


def _init_worker(worker: int) -> None:
    # Each worker is one of several: OpenCV's own threads would compete with the others'.
    cv2.setNumThreads(0)
