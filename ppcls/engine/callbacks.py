# SPDX-License-Identifier: Apache-2.0
"""What looks on while a model trains: log lines, evaluation, checkpoints, scalars."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ppcls.data.bad_samples import REPORT
from ppcls.metric import CORRECT
from ppcls.utils import dist
from ppcls.utils.line_file import LineFile
from ppcls.utils.logger import logger

if TYPE_CHECKING:
    from ppcls.engine.agreement import Agreement
    from ppcls.engine.checkpoint import Checkpointer
    from ppcls.engine.progress import Progress
    from ppcls.engine.signals import Signals
    from ppcls.engine.trainer import StepOutput, TrainState

SAVE_FAILED = "a save has failed"
FLUSH_SECONDS = 10
"""How old a point for VisualDL may become before it is in the file."""

Record = Callable[[dict[str, Any]], None]


class Callback:
    """Five events of a training. A callback may read everything and set ``state.stop``; it may not touch weights."""

    def on_train_start(self, state: TrainState) -> None:
        """Before the first epoch."""

    def on_step_end(self, state: TrainState, output: StepOutput | None) -> None:
        """After every batch; None for one that does not count, as its update is left out for not being finite."""

    def on_rollback(self, state: TrainState) -> None:
        """After a return to a checkpoint, whose state it is now; a run that is continued there starts like this."""

    def on_epoch_end(self, state: TrainState) -> None:
        """After the last batch of every epoch."""

    def on_train_end(self, state: TrainState) -> None:
        """At the end, also when a step raised."""


class EvaluationLeft(Exception):
    """Raised where evaluation asks for its next batch, in all processes: the training is to end without it."""


class Evaluation(Callback):
    """Evaluates now and then, and keeps the weights that did best.

    Args:
        evaluate: gives the figures of the present weights.
        keep_best: writes the present weights away as the best.
        main: the figure that decides; None for never.
        higher_is_better: its direction.
        interval: epochs between evaluations; the last epoch is always evaluated.
        start_epoch: no evaluation before this epoch.
        epochs: the last epoch.
        records: what else wants the figures.
        batches_per_epoch: where in its epoch a training is whose evaluation was left before its end.
    """

    def __init__(
        self,
        evaluate: Callable[[], dict[str, float]],
        keep_best: Callable[[TrainState], None],
        main: str | None,
        higher_is_better: bool,
        interval: int,
        start_epoch: int,
        epochs: int,
        records: tuple[Record, ...] = (),
        batches_per_epoch: int = 0,
    ) -> None:
        self.evaluate = evaluate
        self.keep_best = keep_best
        self.main = main
        self.higher_is_better = higher_is_better
        self.interval = interval
        self.start_epoch = start_epoch
        self.epochs = epochs
        self.records = records
        self.batches_per_epoch = batches_per_epoch

    def on_epoch_end(self, state: TrainState) -> None:
        """Evaluate when it is due."""
        is_due = state.epoch % self.interval == 0 and state.epoch >= self.start_epoch
        if not is_due and state.epoch != self.epochs:
            return
        try:
            state.metrics = self.evaluate()
        except EvaluationLeft:
            logger.info("[Eval][Epoch %d] left before its end; it is done first when the run goes on", state.epoch)
            # So the epoch has not ended: nothing else than this is left of it. Its means are in the log.
            state.batch, state.sums, state.stop = self.batches_per_epoch, [], True
            return
        log_evaluation(f"[Eval][Epoch {state.epoch}]", state.metrics)
        if self.main:
            self._keep_best(state, state.metrics[self.main])
        for write in self.records:
            write({"event": "eval", "epoch": state.epoch, "step": state.step, **state.metrics, "best": state.best})

    def _keep_best(self, state: TrainState, value: float) -> None:
        if math.isnan(value):
            logger.warning("[Eval][Epoch %d] %s is not a number and cannot be the best", state.epoch, self.main)
            return
        # PaddleClas: of equal results the later one is kept.
        is_best = state.best is None or (value >= state.best if self.higher_is_better else value <= state.best)
        if is_best:
            state.best, state.best_epoch = value, state.epoch
            self.keep_best(state)
        logger.info("[Eval][Epoch %d][best %s: %.5f in epoch %d]", state.epoch, self.main, state.best, state.best_epoch)


class SaveCheckpoint(Callback):
    """Saves after every epoch and, if asked, in the middle of one; the checkpointer decides what is kept.

    Running statistics of norms differ between processes until the end of the epoch, when those of the first
    process replace the others. Until then nothing reads them, as training normalizes by the batch. So what
    the first process holds in the middle of an epoch is all that a continued run needs.

    Args:
        checkpointer: writes the checkpoints.
        progress: knows the sums of an epoch that is left in the middle.
        step_interval: optimizer updates between checkpoints; None for the ends of epochs only.
        agreement: how a save that has failed in one process becomes known to all at the next update; None to find
            out when the next one is due.
        signals: ask for checkpoints too, and for one where they end the training; None: they do not.
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        progress: Progress,
        step_interval: int | None = None,
        agreement: Agreement | None = None,
        signals: Signals | None = None,
    ) -> None:
        self.checkpointer = checkpointer
        self.progress = progress
        self.step_interval = step_interval
        self.agreement = agreement
        self.signals = signals
        self._step = self._saved_step = 0
        if agreement:
            agreement.ask(SAVE_FAILED, lambda: checkpointer.has_failed)

    def on_train_start(self, state: TrainState) -> None:
        """Count updates from here."""
        self._step = self._saved_step = state.step

    on_rollback = on_train_start

    def on_step_end(self, state: TrainState, output: StepOutput | None) -> None:
        """Save when an update has just been made, one is due, and the end of the epoch does not save anyway."""
        is_update, self._step = state.step != self._step, state.step
        if self.agreement and is_update and SAVE_FAILED in self.agreement:
            self.checkpointer.settle()
        is_inside = state.batch < self.progress.batches_per_epoch
        is_due = bool(self.step_interval) and state.step % (self.step_interval or 1) == 0
        is_wanted = self.signals is not None and self.signals.is_save_wanted
        if is_update and is_inside and (is_due or is_wanted):
            self._save_inside(state)

    def on_epoch_end(self, state: TrainState) -> None:
        """Save, unless this place is saved: continued there, and left again before its evaluation had ended."""
        if not state.batch or state.step != self._saved_step:
            self._saved_step = state.step
            self.checkpointer.save(state)

    def on_train_end(self, state: TrainState) -> None:
        """Save where a signal has ended the training, if it is the middle of an epoch and was not saved anyway."""
        is_ended = self.signals is not None and self.signals.is_stopping and state.stop
        if is_ended and state.batch and state.step != self._saved_step:
            self._save_inside(state)

    def _save_inside(self, state: TrainState) -> None:
        self._saved_step = state.step
        state.sums = dist.gathered(self.progress.sums())
        self.checkpointer.save(state)


class JsonLines:
    """Appends records to a file, one JSON object a line, written through at once.

    A last line that is not whole, of a run that was killed, is cut off before the first one. After that one, lines
    that cannot be written are counted and do not end the training; see `LineFile`.

    Raises:
        OSError: the first line cannot be written.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.lines = LineFile(path, logger.warning)
        self._has_begun = False

    def __call__(self, record: dict[str, Any]) -> None:
        """Append one record, with the time in seconds since 1970; JSON has no word for NaN and infinity but null."""
        record = {name: None if _is_not_finite(value) else value for name, value in record.items()}
        if not self._has_begun:
            with self.lines.path.open("a+b") as file:
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
            self._has_begun = True
        self.lines.append(json.dumps({"time": round(time.time(), 3), **record}) + "\n")


class VisualDLScalars(Callback):
    """Draws every number of the records as a curve in VisualDL, over the step; at the end it closes the file.

    Raises:
        ImportError: VisualDL is not installed.
    """

    def __init__(self, directory: str | os.PathLike) -> None:
        from visualdl import LogWriter

        self.writer = LogWriter(str(directory), flush_secs=FLUSH_SECONDS)

    def __call__(self, record: dict[str, Any]) -> None:
        """Add a point to the curve of every number."""
        for name, value in record.items():
            if isinstance(value, (int, float)) and name not in ("epoch", "step", "batch", "time"):
                self.writer.add_scalar(f"{record['event']}/{name}", float(value), record["step"])

    def on_train_end(self, state: TrainState) -> None:
        """Close the file: what VisualDL holds back until then would be lost."""
        try:
            self.writer.close()
        except OSError as error:
            logger.warning("VisualDL's file in %s cannot be written (%s)", self.writer.logdir, error.strerror)


def log_evaluation(head: str, figures: dict[str, float]) -> None:
    """The lines of an evaluation: the means, then what was counted over all processes, number by number."""
    counts = {name: count for name, count in figures.items() if name.endswith(CORRECT)}
    num_left_out = figures.get("num_left_out", 0)
    if num_left_out:
        num_samples = figures["num_samples"]
        whole = num_samples + num_left_out
        logger.warning("%s %d of %d images, %d could not be read (%s)", head, num_samples, whole, num_left_out, REPORT)
    logger.info("%s[Avg] %s", head, shown({name: figures[name] for name in figures if name not in counts}))
    for name, count in counts.items():
        total = figures["num_samples"]
        share = 100 * count / total
        logger.info("%s after all-reduce: %s=%d, tot=%d, acc=%.2f%%", head, name, count, total, share)


def shown(figures: dict[str, float]) -> str:
    """Figures as a log line has them."""
    texts = {name: f"{value:.5f}" if isinstance(value, float) else str(value) for name, value in figures.items()}
    return ", ".join(f"{name}: {text}" for name, text in texts.items())


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
