# SPDX-License-Identifier: Apache-2.0
"""How far a training is and how well it goes: log lines, a bar, and the means of an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from ppcls.data.loader import MAX_DEFAULT_WORKERS
from ppcls.engine.callbacks import Callback, Record, shown
from ppcls.metric import CombinedMetric
from ppcls.utils import dist
from ppcls.utils.errors import StorageError
from ppcls.utils.logger import has_bar, logger
from ppcls.utils.machine import usable_cores
from ppcls.utils.memory import peak_memory_mb

NOTABLE_SHARE = 0.2
"""Of an epoch's time spent on waiting for images, the least that is worth a line."""
NOTABLE_SECONDS = 1.0
"""As `NOTABLE_SHARE`, in seconds."""

if TYPE_CHECKING:
    from ppcls.engine.trainer import StepOutput, TrainState


class Progress(Callback):
    """Log lines and, on a terminal, a bar: running means of the epoch, time per batch, time left.

    Args:
        epochs: the last epoch.
        batches_per_epoch: batches in each.
        print_batch_step: batches between two lines.
        metric: fed with the training batches; None for none.
        show_memory: add the largest memory so far to each line.
        records: what else wants every line, as a mapping.
        num_workers: processes that read images, for advice when they are too slow; None for no advice.
    """

    def __init__(
        self,
        epochs: int,
        batches_per_epoch: int,
        print_batch_step: int,
        metric: CombinedMetric | None = None,
        show_memory: bool = False,
        records: tuple[Record, ...] = (),
        num_workers: int | None = None,
    ) -> None:
        self.epochs = epochs
        self.batches_per_epoch = batches_per_epoch
        self.print_batch_step = print_batch_step
        self.metric = metric
        self.show_memory = show_memory
        self.records = records
        self.num_workers = num_workers
        self.bar: tqdm | None = None
        self._sums: dict[str, float] = {}
        self._earlier: list[dict[str, Any]] = []
        self._has_begun = False
        self._has_advised = False

    def on_train_start(self, state: TrainState) -> None:
        """Begin with empty sums, or those of an epoch that was left in the middle."""
        self._start_epoch()
        # Each process takes up its own; with another number of processes, each of the old ones is in one of the new.
        self._earlier = state.sums[dist.rank() :: dist.world_size()] if state.batch else []

    def on_rollback(self, state: TrainState) -> None:
        """As at a start."""
        self._close_bar()
        self.on_train_start(state)

    def on_step_end(self, state: TrainState, output: StepOutput | None) -> None:
        """Add one batch; every ``print_batch_step`` batches write a line."""
        if self._earlier:
            # A batch that does not count has no names.
            self._take_up(state, [*output.parts, *self._metric_names] if output else self._earlier[0]["names"])
        num_samples = 0
        if output:
            num_samples = output.num_samples
            for name, value in output.parts.items():
                self._sums[name] = self._sums.get(name, 0.0) + float(value) * num_samples
            if self.metric:
                self.metric.update(output.logits.astype("float32"), output.labels)
        self._num_samples += num_samples
        self._seconds += state.batch_seconds
        if self._has_begun:  # the first batch of an epoch has to be waited for
            self._waiting.append((state.reader_seconds, state.batch_seconds))
        self._has_begun = True
        self._window.append((state.batch_seconds, state.reader_seconds, num_samples))
        if state.batch % self.print_batch_step == 0 or state.batch == self.batches_per_epoch:
            self._write_line(state)
        self._move_bar(state)

    def on_epoch_end(self, state: TrainState) -> None:
        """Write the means of the epoch, over all processes."""
        self._close_bar()
        if not self._seconds and not self._earlier:
            return  # continued after its last batch: they were written then
        figures, num_samples = self._figures_of_all()
        ips = num_samples / self._seconds
        means = shown(figures) or "no batch counts"
        head = f"[Train][Epoch {state.epoch}/{self.epochs}][Avg]"
        logger.info("%s %s, ips: %.1f images/s, time: %s", head, means, ips, _duration(self._seconds))
        self._record({"event": "epoch", "epoch": state.epoch, "step": state.step, **figures, "ips": ips})
        self._advise(state.epoch)
        self._start_epoch()

    def on_train_end(self, state: TrainState) -> None:
        """Take the bar away."""
        self._close_bar()

    def sums(self) -> dict[str, Any]:
        """What this process has summed up since the beginning of the epoch, as plain numbers."""
        counts: list[list] = []

        def note(array: np.ndarray) -> np.ndarray:
            counts.append(array.tolist())
            return array

        if self.metric:
            # What a metric sums up over processes is all that it remembers.
            self.metric.sync(note)
        return {
            "names": [*self._sums, *self._metric_names],
            "num_samples": self._num_samples,
            "seconds": self._seconds,
            "parts": dict(self._sums),
            "metric": counts,
        }

    def _advise(self, epoch: int) -> None:
        """Say what to do about slow reading, once."""
        if self.num_workers is None or self._has_advised:
            return
        reader_seconds, batch_seconds = (sum(column) for column in zip(*self._waiting or [(0.0, 0.0)]))
        cores = max(usable_cores() // dist.processes_here(), 1)
        advice = reading_verdict(reader_seconds, batch_seconds, self.num_workers, cores)
        if advice:
            logger.info("[Train][Epoch %d] %s", epoch, advice)
            self._has_advised = True

    def _take_up(self, state: TrainState, names: list[str]) -> None:
        """Add what was summed up before the run was continued in this epoch."""
        earlier, self._earlier = self._earlier, []
        if not any(sums["num_samples"] for sums in earlier):
            self._seconds = sum(sums["seconds"] for sums in earlier) / len(earlier)
            return
        if any(sums["names"] != names for sums in earlier):
            logger.warning(
                "losses or metrics are not those of before: the means of epoch %d are over its batches from %d on",
                *(state.epoch, state.batch),
            )
            return
        self._num_samples = sum(sums["num_samples"] for sums in earlier)
        self._seconds = sum(sums["seconds"] for sums in earlier) / len(earlier)
        self._sums = {name: sum(sums["parts"][name] for sums in earlier) for name in earlier[0]["parts"]}
        if self.metric:
            counts = zip(*(sums["metric"] for sums in earlier))
            self.metric.sync(lambda array: _summed(next(counts, ()), array))

    @property
    def _metric_names(self) -> list[str]:
        return self.metric.names if self.metric else []

    def _start_epoch(self) -> None:
        self._sums = {}
        self._num_samples = 0
        self._seconds = 0.0
        self._waiting: list[tuple[float, float]] = []
        self._has_begun = False
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
        if self.metric and self._num_samples:
            figures.update(self.metric.compute())
        memory = f", memory: {peak_memory_mb():.0f} MB" if self.show_memory else ""
        scaling = "".join(f", {name}: {value:g}" for name, value in state.scaling.items())
        losses = f", {shown(figures)}" if figures else ""  # no batch counts where all updates are left out
        logger.info(
            "[Train][Epoch %d/%d][Iter: %d/%d] step: %d, lr: %.8g%s, batch_cost: %.5fs, reader_cost: %.5fs, "
            "ips: %.1f images/s, eta: %s%s%s",
            *(state.epoch, self.epochs, state.batch, self.batches_per_epoch, state.step, state.learning_rate),
            *(losses, batch_seconds / count, reader_seconds / count, ips, _duration(eta), memory, scaling),
            extra={"on_bar": True},
        )
        place = {"epoch": state.epoch, "batch": state.batch, "step": state.step, "lr": state.learning_rate}
        costs = {"batch_cost": batch_seconds / count, "reader_cost": reader_seconds / count, "ips": ips}
        self._record({"event": "train", **place, **figures, **costs, "eta_seconds": eta, **state.scaling})
        if self.bar is not None:
            self.bar.set_postfix_str(f"{shown(figures)}, {ips:.0f} images/s")

    def _figures_of_all(self) -> tuple[dict[str, float], float]:
        """The means over all processes, and how many samples they are over."""
        names = list(self._sums)
        totals = dist.sum_over_ranks(np.array([self._num_samples, *self._sums.values()], np.float64))
        figures = {name: float(total / totals[0]) for name, total in zip(names, totals[1:])}
        if self.metric:
            self.metric.sync(dist.sum_over_ranks)
            if totals[0]:
                figures.update(self.metric.compute())
        return figures, float(totals[0])

    def _record(self, record: dict[str, Any]) -> None:
        for write in self.records:
            write(record)

    def _move_bar(self, state: TrainState) -> None:
        if self.bar is None and has_bar() and dist.is_main():
            self.bar = tqdm(
                initial=state.batch - 1,
                total=self.batches_per_epoch,
                desc=f"epoch {state.epoch}/{self.epochs}",
                leave=False,
            )
        if self.bar is not None:
            self.bar.update(1)

    def _close_bar(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def reading_verdict(reader_seconds: float, batch_seconds: float, num_workers: int, cores: int) -> str | None:
    """Return whether reading images holds the training up, and what to do about it; None where it does not.

    Args:
        reader_seconds: waited for batches.
        batch_seconds: all that the batches took.
        num_workers: processes that read.
        cores: that there are for them.
    """
    if reader_seconds < NOTABLE_SECONDS or reader_seconds <= NOTABLE_SHARE * batch_seconds:
        return None
    key = "DataLoader.Train.loader.num_workers"
    share = f"{reader_seconds / batch_seconds:.0%} of the time went into "
    pack = "pack the data set (tools/pack_dataset.py)"
    if not num_workers:
        return f"{share}reading images in the training process: set {key} to {min(cores, MAX_DEFAULT_WORKERS)}" + (
            f", or {pack}" if cores == 1 else ""
        )
    there = f"{num_workers} worker{'s' * (num_workers > 1)}, {cores} core{'s' * (cores > 1)}"
    more = f"raise {key}, or " if num_workers < cores else ""
    return f"{share}waiting for images ({there}): {more}{pack}"


def _summed(counts: Sequence[Any], like: np.ndarray) -> np.ndarray:
    """The sum of what several processes have counted."""
    arrays = [np.asarray(count) for count in counts]
    if not arrays or any(array.shape != like.shape for array in arrays):
        raise StorageError("the checkpoint's sums of the metrics are not theirs; continue from another one")
    return np.asarray(arrays, like.dtype).sum(0)


def _duration(seconds: float) -> timedelta:
    return timedelta(seconds=round(seconds))
