# SPDX-License-Identifier: Apache-2.0
"""Forward and backward of a batch, by whatever pieces fit into memory."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import paddle
from paddle import nn

from ppcls.data.loader import Batch
from ppcls.engine.pieces import Pieces, TriedSizes, is_out_of_memory, merged
from ppcls.engine.precision import Precision
from ppcls.engine.statistics import Kept, Statistics
from ppcls.engine.train_step import StepOutput
from ppcls.utils import dist
from ppcls.utils.errors import ConfigError
from ppcls.utils.seed import seed_batch


@dataclass(frozen=True)
class BatchPlace:
    """Which batch of a training it is: the epoch and the batch in it, both from 1."""

    epoch: int
    batch: int

    def __str__(self) -> str:
        return f"epoch {self.epoch}, batch {self.batch}"


@dataclass
class _State:
    """What a batch changes before it is known whether it can be computed."""

    statistics: Kept
    gradients: list[paddle.Tensor | None]


class Gradients:
    """Adds the gradients of a batch to those that are there.

    Args:
        train_step: forward and loss; it holds the model.
        precision: number formats.
        accumulate: batches whose gradients make one update.
        seed: of the run; dropout and the like draw from it and the batch's place.
        statistics: of the model.
        pieces: how many images are computed at once.

    Attributes:
        parameters: those of the model that have gradients.
        is_alone: whether a process can compute a batch without the others, but for the exchange of gradients.
    """

    def __init__(
        self,
        train_step: Any,
        precision: Precision,
        accumulate: int,
        seed: int,
        statistics: Statistics,
        pieces: Pieces,
    ) -> None:
        self.train_step = train_step
        self.model: nn.Layer = train_step.model
        self.precision = precision
        self.accumulate = accumulate
        self.seed = seed
        self.statistics = statistics
        self.pieces = pieces
        self.parameters = [each for each in self.model.parameters() if not each.stop_gradient]
        # Synchronized batch norm waits for the other processes in the forward.
        has_synced = any(isinstance(layer, nn.SyncBatchNorm) for layer in self.model.sublayers())
        self.is_alone = dist.world_size() == 1 or not has_synced
        self._tried = TriedSizes()

    def add(self, batch: Batch, place: BatchPlace, before: Kept | None, is_last: bool) -> StepOutput:
        """Compute a batch; when memory runs out, again in smaller pieces.

        Args:
            batch: images [N, C, H, W] and labels.
            place: where it stands in the training.
            before: at the first of those that make one update, a copy of the statistics; there are no gradients yet.
            is_last: the processes exchange their gradients.

        Raises:
            ConfigError: out of memory, and pieces do not help.
        """
        if self.is_alone and self.pieces.on_out_of_memory == "halve" and self._tried.is_due(batch):
            self._try_out(batch, place, before)
        while True:
            state = self._state(before)
            error = ""
            try:
                return self.once(batch, place, is_last)
            except (MemoryError, RuntimeError, OSError) as failure:
                if not is_out_of_memory(failure):
                    raise
                error = first_line(failure)
            # Not in the except block: there the traceback still holds what the failed attempt has computed.
            self._undo(state)
            if dist.world_size() > 1:
                size = max(end - start for start, end in self.pieces.bounds(len(batch[1])))
                raise ConfigError(
                    f"{place}: process {dist.rank()} is out of memory with {size} images at once, in the middle of "
                    f"what all compute together ({error}); {self.pieces.advice(size)}"
                )
            self.pieces.halve(len(batch[1]), error, self.model)

    def once(self, batch: Batch, place: BatchPlace, is_last: bool) -> StepOutput:
        """Compute a batch as `add` does, without another try."""
        images, labels = batch
        seed_batch(self.seed, place.epoch, place.batch, dist.rank())
        bounds = self.pieces.bounds(len(labels))
        outputs = []
        for number, (start, end) in enumerate(bounds):
            with self._gradients_stay_here(not is_last or number < len(bounds) - 1):
                piece = batch if len(bounds) == 1 else (images[start:end], labels[start:end])
                with self.precision.autocast():
                    output: StepOutput = self.train_step(piece)
                loss = output.loss if len(bounds) == 1 else output.loss * ((end - start) / len(labels))
                self.precision.backward(loss / self.accumulate if self.accumulate > 1 else loss)
            outputs.append(output)
        return merged(outputs, labels)

    def present(self) -> list[paddle.Tensor]:
        """The gradients that there are now."""
        return [each.grad for each in self.parameters if each.grad is not None]

    def _try_out(self, batch: Batch, place: BatchPlace, before: Kept | None) -> None:
        """Find the size of pieces that fits in every process, without exchanging anything but the answer."""
        while True:
            state = self._state(before)
            error = ""
            try:
                self.once(batch, place, is_last=False)
            except (MemoryError, RuntimeError, OSError) as failure:
                if not is_out_of_memory(failure):
                    raise
                error = first_line(failure)
            self._undo(state)
            errors = [f"process {rank}: {text}" for rank, text in enumerate(dist.gathered(error)) if text]
            if not errors:
                return
            self.pieces.halve(len(batch[1]), errors[0], self.model)

    @paddle.no_grad()
    def _state(self, before: Kept | None) -> _State:
        if before is not None:
            return _State(before, [])
        if self.pieces.on_out_of_memory == "stop":
            return _State([], [])  # nothing will be tried again
        gradients = [None if each.grad is None else each.grad.clone() for each in self.parameters]
        return _State(self.statistics.copy(), gradients)

    @paddle.no_grad()
    def _undo(self, state: _State) -> None:
        self.statistics.restore(state.statistics)
        for parameter, gradient in zip_longest(self.parameters, state.gradients):
            parameter.clear_gradient()
            if gradient is not None:
                parameter.grad = gradient
        if paddle.get_device().startswith("gpu"):
            paddle.device.cuda.empty_cache()

    def _gradients_stay_here(self, wanted: bool) -> Any:
        """Between updates the gradients of the processes need not be exchanged."""
        is_parallel = isinstance(self.model, paddle.DataParallel)
        return self.model.no_sync() if wanted and is_parallel else nullcontext()


def first_line(error: BaseException) -> str:
    """What an error says first, without the stack of C++ that Paddle writes before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in lines if line.startswith("(")), lines[0] if lines else type(error).__name__)
    return told[:200]
