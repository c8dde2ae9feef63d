# SPDX-License-Identifier: Apache-2.0
"""The training loop. Whatever changes a weight happens in this file."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import paddle
from paddle import nn

from ppcls.arch.output import logits_of
from ppcls.config.registry import TRAIN_STEPS
from ppcls.data.loader import Batch, Loader
from ppcls.engine.agreement import Agreement
from ppcls.engine.callbacks import Callback
from ppcls.engine.ema import ModelEMA
from ppcls.engine.precision import Precision
from ppcls.optimizer import Schedule
from ppcls.utils import dist
from ppcls.utils.errors import NumericsError
from ppcls.utils.seed import seed_device, seed_everything


@dataclass
class TrainState:
    """Where a training is.

    Attributes:
        epoch: the epoch that runs or has just ended, from 1; 0 before the first.
        batch: batches of this epoch that are done; 0 once the epoch is.
        step: optimizer updates since the beginning of the training, those that overflowed included.
        metrics: figures of the last evaluation.
        best: the best main metric so far, and the epoch it is from.
        learning_rate: the rate of the last update.
        reader_seconds: what the last batch was waited for.
        batch_seconds: what the last batch took in all.
        scaling: figures of loss scaling; empty without it.
        sums: what each process had summed up for the log when it was last saved in the middle of an epoch.
        stop: set by a callback to end after this batch.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    best_epoch: int = 0
    learning_rate: float = 0.0
    reader_seconds: float = 0.0
    batch_seconds: float = 0.0
    scaling: dict[str, float] = field(default_factory=dict)
    sums: list[dict[str, Any]] = field(default_factory=list)
    stop: bool = False

    @property
    def epochs_done(self) -> int:
        """Epochs that have ended."""
        return self.epoch - 1 if self.batch else self.epoch


@dataclass
class StepOutput:
    """What one batch gave: the loss that is minimized, its parts, logits [N, class_num], labels, N."""

    loss: paddle.Tensor
    parts: dict[str, paddle.Tensor]
    logits: paddle.Tensor
    labels: paddle.Tensor
    num_samples: int


@TRAIN_STEPS.register
class ClassificationStep:
    """Forward and loss of plain classification.

    Args:
        model: images to output.
        loss: (output, labels) to named scalars, ``loss`` among them.
    """

    def __init__(self, model: nn.Layer, loss: nn.Layer) -> None:
        self.model = model
        self.loss = loss

    def __call__(self, batch: Batch) -> StepOutput:
        """Compute one batch of images [N, C, H, W] and labels [N]."""
        images, labels = batch
        output = self.model(images)
        parts = self.loss(output, labels)
        return StepOutput(parts["loss"], parts, logits_of(output).detach(), labels, len(labels))


class Trainer:
    """Fits a model, epoch by epoch.

    Args:
        train_step: forward and loss; it holds the model.
        loader: the training batches of this process.
        optimizer: of the model's parameters.
        schedule: the optimizer's learning rate.
        epochs: the epoch to end after.
        accumulate: batches whose gradients make one update.
        batches_per_epoch: batches of the loader that count as an epoch; a multiple of ``accumulate``.
        precision: number formats.
        ema: follows the model, if given.
        callbacks: look on, in this order.
        seed: of the run.
        agreement: what the processes settle before every update.
    """

    def __init__(
        self,
        train_step: Any,
        loader: Loader,
        optimizer: paddle.optimizer.Optimizer,
        schedule: Schedule,
        epochs: int,
        accumulate: int = 1,
        batches_per_epoch: int | None = None,
        precision: Precision | None = None,
        ema: ModelEMA | None = None,
        callbacks: Sequence[Callback] = (),
        seed: int = 0,
        agreement: Agreement | None = None,
    ) -> None:
        self.train_step = train_step
        self.model: nn.Layer = train_step.model
        self.loader = loader
        self.optimizer = optimizer
        self.schedule = schedule
        self.epochs = epochs
        self.accumulate = accumulate
        self.batches_per_epoch = batches_per_epoch or len(loader) // accumulate * accumulate
        self.precision = precision or Precision()
        self.ema = ema
        self.callbacks = callbacks
        self.seed = seed
        self.agreement = agreement or Agreement()

    def fit(self, state: TrainState) -> TrainState:
        """Train from ``state`` (changed in place) to the last epoch, or until a callback sets ``stop``.

        A state in the middle of an epoch goes on with that epoch's next batch.
        An epoch that is left in the middle has no ``on_epoch_end``: it is neither evaluated nor saved as done.

        Raises:
            NumericsError: the loss is not finite, and no weight has been changed by it; or its gradients stay so
                whatever the loss scale. A scaled loss or gradient that overflows only skips an update.
        """
        try:
            for callback in self.callbacks:
                callback.on_train_start(state)
            while state.epochs_done < self.epochs and not state.stop:
                state.epoch = state.epochs_done + 1
                self._fit_epoch(state)
                if not state.batch:
                    for callback in self.callbacks:
                        callback.on_epoch_end(state)
        finally:
            for callback in self.callbacks:
                callback.on_train_end(state)
        return state

    def _fit_epoch(self, state: TrainState) -> None:
        # Seeds are functions of the place in the run: a run that starts again here draws the same numbers.
        seed_everything(self.seed, state.epoch, dist.rank())
        self.model.train()
        self.loader.set_epoch(state.epoch)
        batches = islice(self.loader.iterate(state.batch), self.batches_per_epoch - state.batch)
        started = time.perf_counter()
        for batch in batches:
            state.reader_seconds = time.perf_counter() - started
            state.batch += 1
            output = self.step(batch, state)
            state.batch_seconds = time.perf_counter() - started
            for callback in self.callbacks:
                callback.on_step_end(state, output)
            if state.stop and state.batch < self.batches_per_epoch:
                return
            started = time.perf_counter()
        if self.schedule.by_epoch:
            self.schedule.step()
        self._share_statistics()
        state.batch = 0

    def step(self, batch: Batch, state: TrainState) -> StepOutput:
        """Forward, loss and backward of one batch; every ``accumulate`` batches the weights move.

        Raises:
            NumericsError: the loss is not finite.
        """
        is_update = state.batch % self.accumulate == 0
        seed_device(self.seed, state.epoch, state.batch, dist.rank())
        with self._gradients_stay_here(not is_update):
            with self.precision.autocast():
                output: StepOutput = self.train_step(batch)
            self.precision.backward(output.loss / self.accumulate if self.accumulate > 1 else output.loss)
        state.learning_rate = self.optimizer.get_lr()
        self._require_finite(output, state)
        if is_update:
            self._update(state)
        return output

    def _update(self, state: TrainState) -> None:
        self.agreement.settle()
        is_updated = self.precision.update(self.optimizer)
        state.scaling = self.precision.figures()
        # An update that overflowed is left out, and counts all the same: step and learning rate stay functions of
        # the place in the run.
        state.step += 1
        if not self.schedule.by_epoch:
            self.schedule.step()
        if self.ema and is_updated:
            self.ema.update(self.model)

    def _require_finite(self, output: StepOutput, state: TrainState) -> None:
        loss = float(output.loss)
        if not math.isfinite(loss):
            raise NumericsError(
                f"epoch {state.epoch}, batch {state.batch}: the loss is {loss} at learning rate "
                f"{state.learning_rate:g}; try a smaller learning rate, a warmup or clip_global_norm"
            )

    def _share_statistics(self) -> None:
        """Give every process the running statistics of the first: what is evaluated is then what is saved."""
        dist.broadcast_from_main(tensor for tensor in self.model.state_dict().values() if tensor.stop_gradient)
        if self.ema:
            dist.broadcast_from_main(self.ema.model.state_dict().values())

    def _gradients_stay_here(self, wanted: bool) -> Any:
        """Between updates the gradients of the processes need not be exchanged."""
        is_parallel = isinstance(self.model, paddle.DataParallel)
        return self.model.no_sync() if wanted and is_parallel else nullcontext()
