# SPDX-License-Identifier: Apache-2.0
"""The training loop. Whatever changes a weight happens in this file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import paddle
from paddle import nn

from ppcls.data.loader import Batch, Loader
from ppcls.engine.agreement import Agreement
from ppcls.engine.callbacks import Callback
from ppcls.engine.ema import ModelEMA
from ppcls.engine.gradients import BatchPlace, Gradients
from ppcls.engine.guard import Guard, NonFinite, RolledBack, paddles_check
from ppcls.engine.pieces import Pieces
from ppcls.engine.precision import Precision
from ppcls.engine.statistics import Statistics
from ppcls.engine.train_state import TrainState
from ppcls.engine.train_step import ClassificationStep, StepOutput
from ppcls.optimizer import Schedule
from ppcls.utils import dist
from ppcls.utils.errors import NumericsError
from ppcls.utils.logger import logger
from ppcls.utils.seed import seed_everything

__all__ = ["ClassificationStep", "StepOutput", "TrainState", "Trainer"]


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
        non_finite: what to do about an update that is not finite.
        pieces: how many images are computed at once.
        until_stop: passes batches on; sets ``stop`` and ends where the training is to end instead of going on to wait.
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
        non_finite: NonFinite | None = None,
        pieces: Pieces | None = None,
        until_stop: Callable[[Iterator[Batch], TrainState], Iterator[Batch]] = lambda batches, state: batches,
    ) -> None:
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
        self.non_finite = non_finite or NonFinite()
        self.pieces = pieces or Pieces()
        self.until_stop = until_stop
        self.gradients = Gradients(train_step, self.precision, accumulate, seed, Statistics(self.model), self.pieces)
        self.guard = Guard(self.gradients, self.agreement, self.non_finite)

    def fit(self, state: TrainState) -> TrainState:
        """Train from ``state`` (changed in place) to the last epoch, or until a callback sets ``stop``.

        A state in the middle of an epoch goes on with that epoch's next batch.
        An epoch that is left in the middle has no ``on_epoch_end``: it is neither evaluated nor saved as done.

        Raises:
            NumericsError: something is not finite and the run is to stop at it, in all processes at the same update;
                no weight, moment, average or statistic has been changed by it. A scaled gradient that overflows
                only leaves an update out.
            ConfigError: out of memory, with nothing left to try.
        """
        self.pieces.load_state_dict(state.pieces)
        try:
            for callback in self.callbacks:
                callback.on_train_start(state)
            while state.epochs_done < self.epochs and not state.stop:
                state.epoch = state.epochs_done + 1
                # A run that was left while it was evaluated goes on after its last batch: at the end of the epoch.
                if state.batch == self.batches_per_epoch or self._fit_epoch(state):
                    state.batch = 0
                    for callback in self.callbacks:
                        callback.on_epoch_end(state)
            if state.non_finite:
                logger.warning("%d updates were left out, as something in them was not finite", state.non_finite)
        except BaseException as error:
            self._end(state, error)
            raise
        self._end(state)
        return state

    def _end(self, state: TrainState, failure: BaseException | None = None) -> None:
        """Let every callback end; of all errors the first is raised, and later ones are only logged."""
        own: Exception | None = None
        for callback in self.callbacks:
            try:
                callback.on_train_end(state)
            except Exception as error:  # noqa: BLE001
                if failure or own:
                    logger.error("after %s: %s: %s", type(failure or own).__name__, type(error).__name__, error)
                else:
                    own = error
        if own:
            raise own

    def _fit_epoch(self, state: TrainState) -> bool:
        """Whether the epoch has come to its end; it has not after a stop or a rollback in its middle."""
        # Seeds are functions of the place in the run: a run that starts again here draws the same numbers.
        seed_everything(self.seed, state.epoch, dist.rank())
        self.model.train()
        self.loader.set_epoch(state.epoch)
        batches = self.until_stop(self.loader.iterate(state.batch), state)
        batches = islice(batches, self.batches_per_epoch - state.batch)
        started = time.perf_counter()
        for batch in batches:
            state.reader_seconds = time.perf_counter() - started
            state.batch += 1
            try:
                output = self.step(batch, state)
            except RolledBack as back:
                self._go_back(state, back)
                return False
            state.batch_seconds = time.perf_counter() - started
            for callback in self.callbacks:
                callback.on_step_end(state, output)
            if state.stop:
                break
            started = time.perf_counter()
        if state.stop and state.batch < self.batches_per_epoch:
            state.epoch -= not state.batch  # not begun
            return False
        if self.schedule.by_epoch:
            self.schedule.step()
        self._share_statistics()
        return True

    def step(self, batch: Batch, state: TrainState) -> StepOutput | None:
        """Forward, loss and backward of one batch; every ``accumulate`` batches the weights move.

        Returns:
            What the batch gave; None if it does not count, as its update is left out for not being finite.

        Raises:
            NumericsError: as in `fit`.
            RolledBack: the training has to go back to a checkpoint.
        """
        place = BatchPlace(state.epoch, state.batch)
        is_first, is_update = (state.batch - 1) % self.accumulate == 0, state.batch % self.accumulate == 0
        state.learning_rate = self.optimizer.get_lr()
        if state.step + 1 in state.left_out:
            if is_update:
                self.guard.begin()
                self.agreement.settle()
                self._advance(state)
            return None
        with paddles_check(place):
            if is_first:
                self.guard.begin()
            output = self.gradients.add(batch, place, self.guard.kept if is_first else None, is_update)
            state.pieces = self.pieces.state_dict()
            self.guard.look(batch, output, place, is_update)
            if is_update and not self._update(place, state):
                return None
        return output

    def _update(self, place: BatchPlace, state: TrainState) -> bool:
        """Move the weights, if all that they follow from is finite; whether the batch counts."""
        self.agreement.settle()
        counts = not self.guard.is_alarmed
        if not counts:
            self.guard.leave_out(place, state)
        elif self.precision.update(self.optimizer, self.guard.has_overflow):
            self.guard.require_finite_weights(place, state)
            if self.ema:
                self.ema.update(self.model)
        # An update that is left out counts all the same: step and learning rate stay functions of the place in the run.
        state.scaling = self.precision.figures()
        self._advance(state)
        return counts

    def _advance(self, state: TrainState) -> None:
        state.step += 1
        if not self.schedule.by_epoch:
            self.schedule.step()

    def _go_back(self, state: TrainState, back: RolledBack) -> None:
        """Continue from the newest checkpoint, and remember to leave the update out that led here."""
        left_out, num = sorted({*state.left_out, state.step + 1}), state.non_finite
        restored = self.non_finite.roll_back() if self.non_finite.roll_back else None
        if restored is None:
            raise NumericsError(f"{back}; there is no checkpoint yet to go back to; save some with save_step_interval")
        vars(state).update({**vars(restored), "left_out": left_out, "non_finite": num, "stop": state.stop})
        self.optimizer.clear_grad()
        self.pieces.load_state_dict(state.pieces)
        logger.warning(
            "%s; back to %d epochs and %d batches, step %d, and update %d will be left out (%d of at most %d)",
            *(back, state.epochs_done, state.batch, state.step, left_out[-1], num, self.non_finite.max_updates),
        )
        for callback in self.callbacks:
            callback.on_rollback(state)

    def _share_statistics(self) -> None:
        """Give every process the running statistics of the first: what is evaluated is then what is saved."""
        dist.broadcast_from_main(tensor for tensor in self.model.state_dict().values() if tensor.stop_gradient)
        if self.ema:
            dist.broadcast_from_main(self.ema.model.state_dict().values())
