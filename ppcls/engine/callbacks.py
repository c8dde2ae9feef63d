# SPDX-License-Identifier: Apache-2.0
"""What looks on while a model trains: log lines, evaluation, checkpoints, scalars."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from ppcls.metric import CombinedMetric
from ppcls.utils import dist
from ppcls.utils.logger import has_bar, logger
from ppcls.utils.memory import peak_memory_mb

if TYPE_CHECKING:
    from ppcls.engine.checkpoint import Checkpointer
    from ppcls.engine.trainer import StepOutput, TrainState

FLUSH_SECONDS = 10
"""How old a point for VisualDL may become before it is in the file."""

Record = Callable[[dict[str, Any]], None]


class Callback:
    """Four events of a training. A callback may read everything and set ``state.stop``; it may not touch weights."""

    def on_train_start(self, state: TrainState) -> None:
        """Before the first epoch."""

    def on_step_end(self, state: TrainState, output: StepOutput) -> None:
        """After every batch."""

    def on_epoch_end(self, state: TrainState) -> None:
        """After the last batch of every epoch."""

    def on_train_end(self, state: TrainState) -> None:
        """At the end, also when a step raised."""


class Progress(Callback):
    """Log lines and, on a terminal, a bar: running means of the epoch, time per batch, time left.

    Args:
        epochs: the last epoch.
        batches_per_epoch: batches in each.
        print_batch_step: batches between two lines.
        metric: fed with the training batches; None for none.
        show_memory: add the largest memory so far to each line.
        records: what else wants every line, as a mapping.
    """

    def __init__(
        self,
        epochs: int,
        batches_per_epoch: int,
        print_batch_step: int,
        metric: CombinedMetric | None = None,
        show_memory: bool = False,
        records: tuple[Record, ...] = (),
    ) -> None:
        self.epochs = epochs
        self.batches_per_epoch = batches_per_epoch
        self.print_batch_step = print_batch_step
        self.metric = metric
        self.show_memory = show_memory
        self.records = records
        self.bar: tqdm | None = None

    def on_train_start(self, state: TrainState) -> None:
        """Begin with empty sums."""
        self._start_epoch()

    def on_step_end(self, state: TrainState, output: StepOutput) -> None:
        """Add one batch; every ``print_batch_step`` batches write a line."""
        for name, value in output.parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value) * output.num_samples
        self._num_samples += output.num_samples
        self._seconds += state.batch_seconds
        if self.metric:
            self.metric.update(output.logits.astype("float32"), output.labels)
        self._window.append((state.batch_seconds, state.reader_seconds, output.num_samples))
        if state.batch % self.print_batch_step == 0 or state.batch == self.batches_per_epoch:
            self._write_line(state)
        self._move_bar(state)

    def on_epoch_end(self, state: TrainState) -> None:
        """Write the means of the epoch, over all processes."""
        self._close_bar()
        figures = self._figures_of_all()
        ips = self._num_samples * dist.world_size() / self._seconds
        head = f"[Train][Epoch {state.epoch}/{self.epochs}][Avg]"
        logger.info("%s %s, ips: %.1f images/s, time: %s", head, shown(figures), ips, _duration(self._seconds))
        self._record({"event": "epoch", "epoch": state.epoch, "step": state.step, **figures, "ips": ips})
        self._start_epoch()

    def on_train_end(self, state: TrainState) -> None:
        """Take the bar away."""
        self._close_bar()

    def _start_epoch(self) -> None:
        self._sums: dict[str, float] = {}
        self._num_samples = 0
        self._seconds = 0.0
        self._window: list[tuple[float, float, int]] = []
        if self.metric:
            self.metric.reset()

    def _write_line(self, state: TrainState) -> None:
        batch_seconds, reader_seconds, num_samples = (sum(column) for column in zip(*self._window))
        count = len(self._window)
        self._window = []
        ips = num_samples * dist.world_size() / batch_seconds
        batches_left = (self.epochs - state.epoch + 1) * self.batches_per_epoch - state.batch
        eta = batches_left * batch_seconds / count
        figures = {name: total / self._num_samples for name, total in self._sums.items()}
        if self.metric:
            figures.update(self.metric.compute())
        memory = f", memory: {peak_memory_mb():.0f} MB" if self.show_memory else ""
        logger.info(
            "[Train][Epoch %d/%d][Iter: %d/%d] step: %d, lr: %.8g, %s, batch_cost: %.5fs, reader_cost: %.5fs, "
            "ips: %.1f images/s, eta: %s%s",
            *(state.epoch, self.epochs, state.batch, self.batches_per_epoch, state.step, state.learning_rate),
            *(shown(figures), batch_seconds / count, reader_seconds / count, ips, _duration(eta), memory),
            extra={"on_bar": True},
        )
        place = {"epoch": state.epoch, "batch": state.batch, "step": state.step, "lr": state.learning_rate}
        costs = {"batch_cost": batch_seconds / count, "reader_cost": reader_seconds / count, "ips": ips}
        self._record({"event": "train", **place, **figures, **costs, "eta_seconds": eta})
        if self.bar is not None:
            self.bar.set_postfix_str(f"{shown(figures)}, {ips:.0f} images/s")

    def _figures_of_all(self) -> dict[str, float]:
        names = list(self._sums)
        totals = dist.sum_over_ranks(np.array([self._num_samples, *self._sums.values()], np.float64))
        figures = {name: float(total / totals[0]) for name, total in zip(names, totals[1:])}
        if self.metric:
            self.metric.sync(dist.sum_over_ranks)
            figures.update(self.metric.compute())
        return figures

    def _record(self, record: dict[str, Any]) -> None:
        for write in self.records:
            write(record)

    def _move_bar(self, state: TrainState) -> None:
        if self.bar is None and has_bar() and dist.is_main():
            self.bar = tqdm(total=self.batches_per_epoch, desc=f"epoch {state.epoch}/{self.epochs}", leave=False)
        if self.bar is not None:
            self.bar.update(1)

    def _close_bar(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


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
    ) -> None:
        self.evaluate = evaluate
        self.keep_best = keep_best
        self.main = main
        self.higher_is_better = higher_is_better
        self.interval = interval
        self.start_epoch = start_epoch
        self.epochs = epochs
        self.records = records

    def on_epoch_end(self, state: TrainState) -> None:
        """Evaluate when it is due."""
        is_due = state.epoch % self.interval == 0 and state.epoch >= self.start_epoch
        if not is_due and state.epoch != self.epochs:
            return
        state.metrics = self.evaluate()
        logger.info("[Eval][Epoch %d][Avg] %s", state.epoch, shown(state.metrics))
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
    """Saves after every epoch; the checkpointer decides what is kept."""

    def __init__(self, checkpointer: Checkpointer) -> None:
        self.checkpointer = checkpointer

    def on_epoch_end(self, state: TrainState) -> None:
        """Save."""
        self.checkpointer.save(state)


class JsonLines:
    """Appends records to a file, one JSON object a line, written through at once."""

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)

    def __call__(self, record: dict[str, Any]) -> None:
        """Append one record, with the time in seconds since 1970; JSON has no word for NaN and infinity but null."""
        record = {name: None if _is_not_finite(value) else value for name, value in record.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": round(time.time(), 3), **record}) + "\n")


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
        self.writer.close()


def shown(figures: dict[str, float]) -> str:
    """Figures as a log line has them."""
    texts = {name: f"{value:.5f}" if isinstance(value, float) else str(value) for name, value in figures.items()}
    return ", ".join(f"{name}: {text}" for name, text in texts.items())


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _duration(seconds: float) -> timedelta:
    return timedelta(seconds=round(seconds))
