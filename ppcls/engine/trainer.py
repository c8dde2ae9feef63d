# SPDX-License-Identifier: Apache-2.0
"""The training loop. Whatever changes a weight happens in this file."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import paddle
from paddle import nn

from ppcls.data.loader import Batch, Loader
from ppcls.engine.agreement import Agreement
from ppcls.engine.callbacks import Callback
from ppcls.engine.ema import ModelEMA
from ppcls.engine.finite import all_finite, names_not_finite
from ppcls.engine.gradients import BatchPlace, Gradients, paddles_check
from ppcls.engine.non_finite import ADVICE, Examiner, OnNonFinite, Suspect, told_by_all
from ppcls.engine.pieces import Pieces
from ppcls.engine.precision import Precision
from ppcls.engine.statistics import Kept, Statistics
from ppcls.engine.train_step import ClassificationStep, StepOutput
from ppcls.optimizer import Schedule
from ppcls.utils import dist
from ppcls.utils.errors import NumericsError
from ppcls.utils.logger import logger
from ppcls.utils.seed import seed_everything

__all__ = ["ClassificationStep", "StepOutput", "TrainState", "Trainer"]


NOT_FINITE = "something is not finite"
OVERFLOW = "a gradient is not finite"
"""What the processes ask each other before an update."""


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
        non_finite: updates so far that were left out, or rolled back, because something was not finite.
        left_out: the updates, from 1, that a rollback has led past: they are left out when they come again.
        pieces: the pieces that batches are computed in since memory ran out; empty before that.
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
    non_finite: int = 0
    left_out: list[int] = field(default_factory=list)
    pieces: dict[str, Any] = field(default_factory=dict)
    stop: bool = False

    @property
    def epochs_done(self) -> int:
        """Epochs that have ended."""
        return self.epoch - 1 if self.batch else self.epoch


@dataclass(frozen=True)
class NonFinite:
    """What to do about an update whose loss, gradients or statistics are not finite.

    Attributes:
        action: stop; leave the update out; or go back to the newest checkpoint, and leave it out the next time.
        max_updates: as many may be left out in a run; one more stops it.
        roll_back: restores the newest checkpoint; gives None where there is none.
        output_dir: where such batches are written.
        samples: what the data set calls the samples of a batch (from 1) of the present epoch.
    """

    action: OnNonFinite = "stop"
    max_updates: int = 10
    roll_back: Callable[[], TrainState | None] | None = None
    output_dir: Path | None = None
    samples: Callable[[int], list[str]] | None = None


class RolledBack(Exception):
    """An update that is to be forgotten, with everything since the newest checkpoint; says why."""


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
        self.statistics = Statistics(self.model)
        self.gradients = Gradients(train_step, self.precision, accumulate, seed, self.statistics, self.pieces)
        self.agreement.ask(NOT_FINITE, lambda: self._suspect is not None)
        self.agreement.ask(OVERFLOW, lambda: self._has_overflow)
        self._has_overflow = False
        self._suspect: Suspect | None = None
        self._kept: Kept = []

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
            RolledBack: model and optimizer are now those of a checkpoint.
        """
        place = BatchPlace(state.epoch, state.batch)
        is_first, is_update = (state.batch - 1) % self.accumulate == 0, state.batch % self.accumulate == 0
        state.learning_rate = self.optimizer.get_lr()
        if is_first:
            self._suspect, self._kept = None, self.statistics.copy()
        if state.step + 1 in state.left_out:
            if is_update:
                self.agreement.settle()
                self._advance(state)
            return None
        output = self.gradients.add(batch, place, is_first, is_update)
        state.pieces = self.pieces.state_dict()
        if self._suspect is None:
            what = self._what_is_not_finite(output, is_update)
            self._suspect = Suspect(batch, place, what, output) if what else None
        if is_update and not self._update(Suspect(batch, place, "a gradient is not finite", output, False), state):
            return None
        return output

    def _update(self, last: Suspect, state: TrainState) -> bool:
        """Move the weights, if all that they follow from is finite; whether the batch counts."""
        self._has_overflow = not self.precision.unscale(self.gradients.parameters)
        self.agreement.settle()
        has_overflow = OVERFLOW in self.agreement
        if NOT_FINITE in self.agreement or (has_overflow and not self.precision.forgives_overflow):
            self._leave_out(self._suspect or (last if self._has_overflow else None), last.place, state)
            return False
        with paddles_check(last.place):
            is_updated = self.precision.update(self.optimizer, has_overflow)
        if is_updated:
            self._require_finite_weights(last.place, state)
            if self.ema:
                self.ema.update(self.model)
        # An update that overflowed is left out, and counts all the same: step and learning rate stay functions of
        # the place in the run.
        state.scaling = self.precision.figures()
        self._advance(state)
        return True

    def _advance(self, state: TrainState) -> None:
        state.step += 1
        if not self.schedule.by_epoch:
            self.schedule.step()

    def _what_is_not_finite(self, output: StepOutput, is_update: bool) -> str:
        """What this process finds after a batch, empty for nothing; gradients that are to be updated come later."""
        loss = float(output.loss)
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not self.statistics.are_finite():
            return "a running statistic is not finite"
        # Scaled gradients may overflow, which is nothing to worry about.
        if is_update or self.precision.scaler or all_finite(self.gradients.present()):
            return ""
        return "a gradient is not finite"

    def _leave_out(self, suspect: Suspect | None, place: BatchPlace, state: TrainState) -> None:
        """Say what was not finite, make undone what it has changed, and do what the settings want.

        Args:
            suspect: of this process, if it has one.
            place: of the update.
            state: where the training is.
        """
        examiner = Examiner(self.gradients, self.non_finite.output_dir, self.non_finite.samples)
        text = told_by_all(examiner.told(suspect, state.learning_rate) if suspect else "")
        text = text or f"{place}: a gradient is not finite at learning rate {state.learning_rate:g}"
        self.optimizer.clear_grad()
        self.statistics.restore(self._kept)
        state.non_finite += 1
        if self.non_finite.action == "stop":
            raise NumericsError(f"{text}; {ADVICE}, or Global.on_non_finite: skip")
        self._count(text, state)
        if self.non_finite.action == "rollback":
            raise RolledBack(text)
        logger.warning(
            "%s; the update is left out (%d of at most %d)", text, state.non_finite, self.non_finite.max_updates
        )
        self._advance(state)

    def _count(self, text: str, state: TrainState) -> None:
        most = self.non_finite.max_updates
        if state.non_finite > most:
            raise NumericsError(f"{text}; Global.max_non_finite allows {most} such updates, and {most} were before")

    def _require_finite_weights(self, place: BatchPlace, state: TrainState) -> None:
        # Every process holds the same weights, and comes to the same answer.
        if all_finite(self.gradients.parameters):
            return
        names = names_not_finite(dict(self.model.named_parameters()))
        text = (
            f"{place}: the update at learning rate {state.learning_rate:g} has made weights not finite: {names[0]}"
            + f" and {len(names) - 1} more" * (len(names) > 1)
        )
        state.non_finite += 1
        if self.non_finite.action == "rollback":
            self._count(text, state)
            raise RolledBack(text)
        undo = "; an update that is made cannot be skipped, only rolled back" * (self.non_finite.action == "skip")
        raise NumericsError(f"{text}; {ADVICE}{undo}")

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
