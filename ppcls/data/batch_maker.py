# SPDX-License-Identifier: Apache-2.0
"""How the samples of one batch become two arrays; the same in a worker process and in the training process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ppcls.data.position import Position, indices_and_draws, sample_at
from ppcls.data.rng import BatchRng, SampleRng
from ppcls.utils import pulse
from ppcls.utils.errors import DataError

MAX_TRIES = 5
"""How many others are tried, one after the other, in the place of a sample that cannot be read."""

OnBad = Literal["error", "replace", "leave_out"]
Empty = Callable[[Sequence[int], np.dtype], np.ndarray]


@dataclass
class Made:
    """A batch, and what was wrong with it.

    Attributes:
        images: [N, ...], or None when all samples were left out.
        labels: [N] or [N, ...].
        bad: index and reason of each sample that could not be read.
    """

    images: np.ndarray | None
    labels: np.ndarray | None
    bad: list[tuple[int, str]] = field(default_factory=list)


class BadBatch(Exception):
    """No batch could be made; brings along which samples could not be read on the way there."""

    def __init__(self, error: DataError, bad: list[tuple[int, str]]) -> None:
        super().__init__(error, bad)
        self.error = error
        self.bad = bad


class BatchMaker:
    """Makes the samples of a batch and puts them into arrays without a copy in between.

    Args:
        dataset: has ``len`` and ``sample(index, rng) -> (image, label)``.
        seed: of the run.
        on_bad: what becomes of a sample that cannot be read: an ``error``; ``replace``: another one takes its place,
            which its own random numbers choose, so that neither workers nor restarts matter; ``leave_out``.
    """

    def __init__(self, dataset: Any, seed: int, on_bad: OnBad = "error") -> None:
        self.dataset = dataset
        self.seed = seed
        self.on_bad = on_bad

    def __call__(
        self,
        positions: Sequence[Position],
        empty: Empty = np.empty,
        at: Callable[[int], None] = lambda index: None,
        deadly: Mapping[int, str] | None = None,
    ) -> Made:
        """Return the samples of these positions as arrays.

        Args:
            positions: of each sample.
            empty: gives arrays of a shape and type to write into.
            at: told the index of every sample before it is made.
            deadly: index and reason of samples that must not be touched, as they end the process.

        Raises:
            BadBatch: no other sample in the place of a bad one could be read either.
            DataError: the samples do not fit together; or one cannot be read, and is an error.
        """
        deadly = deadly or {}
        if getattr(self.dataset, "makes_batches", False) and not deadly and positions[0].size is None:
            at(positions[0].index)
            pulse.beat()
            indices, draws = indices_and_draws(positions)
            return Made(*self.dataset.samples(indices, BatchRng(self.seed, positions[0].epoch, draws)))
        made = Made(None, None)
        count = 0
        for position in positions:
            sample = self._sample(position, at, deadly, made.bad)
            pulse.beat()
            if sample is None:
                continue
            image, label = sample
            if made.images is None or made.labels is None:
                label = np.asarray(label)
                kind = np.dtype(np.int64) if label.dtype.kind in "iub" else label.dtype
                made.images = empty((len(positions), *image.shape), image.dtype)
                made.labels = empty((len(positions), *label.shape), kind)
            else:
                _require_alike(made.images[0], image)
            made.images[count] = image
            made.labels[count] = label
            count += 1
        if made.images is not None and made.labels is not None:
            made.images, made.labels = made.images[:count], made.labels[:count]
        return made

    def _sample(
        self,
        position: Position,
        at: Callable[[int], None],
        deadly: Mapping[int, str],
        bad: list[tuple[int, str]],
    ) -> tuple[np.ndarray, Any] | None:
        if self.on_bad == "error":
            at(position.index)
            return sample_at(self.dataset, position, self.seed)
        chosen, rng = position, None
        choice = SampleRng(self.seed, position.epoch, position.draw)
        error: DataError | None = None
        for _ in range(MAX_TRIES + 1 if self.on_bad == "replace" else 1):
            try:
                if chosen.index in deadly:
                    raise DataError(deadly[chosen.index])
                at(chosen.index)
                return sample_at(self.dataset, chosen, self.seed, rng)
            except DataError as caught:
                bad.append((chosen.index, str(caught)))
                error = error or caught
            # The draws go on from those that chose it: a sample does not look as it does in its own place.
            chosen, rng = position._replace(index=choice.integers(0, len(self.dataset))), choice
        if self.on_bad == "leave_out":
            return None
        assert error is not None
        raise BadBatch(DataError(f"{error}; nor can {MAX_TRIES} others, drawn in its place, be read"), bad)


def _require_alike(first: np.ndarray, other: np.ndarray) -> None:
    if other.shape != first.shape:
        shapes = sorted((first.shape, other.shape))
        raise DataError(
            f"the images of one batch differ in shape: {' and '.join(str(list(shape)) for shape in shapes)}; "
            "end transform_ops with operations of a fixed size, such as ResizeImage: {size: 224}"
        )
    if other.dtype != first.dtype:
        raise DataError(f"the images of one batch differ in type: {first.dtype} and {other.dtype}")
