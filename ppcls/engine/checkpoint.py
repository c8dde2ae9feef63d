# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: written whole or not at all, trusted only while they verify, enough to continue to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import paddle
from paddle import nn

from ppcls.engine.changed_config import ComparedConfig
from ppcls.engine.checkpoint_writer import CheckpointWriter, OnError
from ppcls.engine.continuation import restore_training
from ppcls.engine.ema import ModelEMA
from ppcls.engine.finite import names_not_finite
from ppcls.engine.optimizer_state import optimizer_tensors
from ppcls.engine.precision import Precision
from ppcls.engine.resume_point import AUTO, find_checkpoint
from ppcls.engine.run_directory import BEST, Place, Trust, best_epoch, clear, directory_of, name_of, prune, set_aside
from ppcls.engine.snapshot import Arrays, Snapshot, weights_of
from ppcls.engine.trainer import TrainState
from ppcls.optimizer import Schedule
from ppcls.utils import dist
from ppcls.utils.errors import NumericsError
from ppcls.utils.logger import logger


@dataclass
class MovingParts:
    """What a training consists of, as far as it changes while it runs."""

    model: nn.Layer
    optimizer: paddle.optimizer.Optimizer
    schedule: Schedule
    precision: Precision
    ema: ModelEMA | None = None


@dataclass(frozen=True)
class Pace:
    """How a training goes through its images.

    Attributes:
        updates_per_epoch: has to be the same when a checkpoint is continued.
        batches_per_update: of one process.
        images_per_update: of all processes; has to be the same when an epoch is continued in its middle.
        images: in the training set; likewise. None where it is not known.
    """

    updates_per_epoch: int
    batches_per_update: int
    images_per_update: int
    images: int | None = None


class Checkpointer:
    """Saves and restores a training in ``epoch_N`` and ``epoch_N_step_S``, and its best weights in ``best_model``.

    A context manager around the training: within it, saving takes a copy of all state in the host's memory (which
    holds the state twice for that long) and returns, while a thread writes the copy. Its end waits for the thread.
    Outside it, saving returns when all is written, or raises.

    Args:
        output_dir: where these directories appear.
        parts: what is saved and restored.
        pace: how the training goes on; a checkpoint has to fit it.
        save_interval: checkpoints of epochs divisible by it are kept; the newest two always are. 0: only those.
        keep_max: keep the newest so many, whatever ``save_interval`` says.
        on_all_ranks: every process writes checkpoints, process r to ``output_dir/rank_r``.
        description: written into every checkpoint; a checkpoint of other ``class_names`` is not continued.
        on_error: what a save that fails within the context means.
        after_save: called in the thread after every checkpoint.
        config: kept in every checkpoint, and compared when one is continued.
    """

    def __init__(
        self,
        output_dir: str | Path,
        parts: MovingParts,
        pace: Pace,
        save_interval: int = 1,
        keep_max: int | None = None,
        on_all_ranks: bool = False,
        description: Mapping[str, Any] | None = None,
        on_error: OnError = "stop",
        after_save: Callable[[], None] | None = None,
        config: ComparedConfig | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.parts = parts
        self.pace = pace
        self.save_interval = save_interval
        self.keep_max = keep_max
        self.writes = on_all_ranks or dist.is_main()
        self.directory = directory_of(dist.rank(), self.output_dir)
        self.description = description or {}
        self.after_save = after_save
        self.config = config
        self._stored_config = config and config.tree
        self._trust = Trust()
        self._writer = CheckpointWriter(self.directory, on_error)
        self._is_background = False

    def __enter__(self) -> Checkpointer:
        """From here on saves are written in the background."""
        self._is_background = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for what is being written.

        Raises:
            StorageError: the last save failed; said in the log only when the training has failed anyway.
            PeerError: it failed in another process.
        """
        self._is_background = False
        if error is not None:
            self._writer.give_up()
        else:
            self._writer.finish()

    def save(self, state: TrainState) -> None:
        """Write the checkpoint of an epoch that has just ended, or runs; then remove those that are not kept.

        Raises:
            StorageError: it, or within the context the one before it, cannot be written, and that ends the training;
                what was there before is untouched.
            PeerError: another process cannot write its own.
            NumericsError: something of it is not finite.
        """
        self._require_finite(state)
        self.settle()
        path = self.directory / name_of(_place(state))
        epoch = state.epoch
        self._writer.begin(self._snapshot(path, state) if self.writes else None, lambda: self._clean_up(path, epoch))
        if not self._is_background:
            self._writer.finish()

    def save_best(self, state: TrainState) -> None:
        """Write the weights that evaluation has just used (the averaged ones, with EMA) as the best.

        Within the context the next `save` writes them, before the checkpoint that mentions them.

        Raises:
            StorageError: they cannot be written; the former best is untouched.
            PeerError: the first process, which writes them, cannot.
        """
        best = None
        if dist.is_main():
            model = self.parts.ema.model if self.parts.ema else self.parts.model
            tensors = {"model.safetensors": weights_of(model)}
            texts = {"state.json": self._state_text(state, {}, {})}
            best = Snapshot(self.output_dir / BEST, "best weights", tensors, texts)
        self._writer.stage(best)
        if not self._is_background:
            self._writer.finish()

    @property
    def has_failed(self) -> bool:
        """Whether a save of this process has failed, and the processes have not settled it yet."""
        return self._writer.has_failed

    def settle(self) -> None:
        """Wait until what was saved is on the disk; act on what is not. All processes call it together.

        Raises:
            StorageError: a save of this process failed, and that ends the training.
            PeerError: one of another process did.
        """
        self._writer.settle()

    def start(self, source: str | None) -> TrainState:
        """Begin a training, or go on with one; what an earlier one left in the output directory is set aside.

        The directory has to be this run's alone: what a run that was killed had not finished there is removed.

        Args:
            source: as in `load`; ``None`` begins anew.

        Raises:
            StorageError: as in `load`.
        """
        # What tells checkpoints apart is the same in all processes, though paths may differ between machines.
        self._stored_config = dist.gathered(self._stored_config)[0]
        with dist.together():
            if self.writes:
                clear(self.directory)
        state = self.load(source) if source else TrainState()
        kept = dist.gathered(best_epoch(self.output_dir))[0]
        if state.best is not None and kept != state.best_epoch:
            logger.warning(
                "the best weights so far, of epoch %d, are not in this run; best begins anew", state.best_epoch
            )
            state.best, state.best_epoch = None, 0
        with dist.together():
            aside = set_aside(self.directory, _place(state)) if self.writes else None
            if aside:
                logger.warning("%s: what an earlier run left there is now in %s", self.directory, aside.name)
        return state

    def load(self, source: str) -> TrainState:
        """Restore a training; every process continues from the same checkpoint, or none does.

        Args:
            source: a checkpoint directory; ``auto`` for the newest that verifies in the output directory, or a
                fresh start when there is none; ``<directory>/latest`` for the newest there.

        Raises:
            StorageError: it is not there, does not verify, or is of another model or optimizer; or there are
                checkpoints in the output directory and none verifies.
            ConfigError: the configuration has changed in a way that it cannot go on with.
            DataError: its classes are not those of this training.
            PeerError: another process cannot restore it.
        """
        path = find_checkpoint(source, self.output_dir)
        if path is None:
            logger.info("checkpoints: auto: no checkpoint in %s yet, starting from the beginning", self.output_dir)
            return TrainState()
        with dist.together():
            names = self.description.get("class_names")
            state = restore_training(path, self.parts, self.pace, names, self.config)
        inside = f" and {state.batch} batches of epoch {state.epoch}" if state.batch else ""
        logger.info("continuing from %s: %d epochs%s, step %d are done", path, state.epochs_done, inside, state.step)
        return state

    def roll_back(self, started_from: str | None) -> TrainState | None:
        """Restore the newest checkpoint of this run, in the middle of it.

        Args:
            started_from: what it was started with, for a run that has no checkpoint of its own yet.

        Returns:
            The state; None if there is none.

        Raises:
            StorageError: as in `load`.
        """
        self.settle()
        if find_checkpoint(AUTO, self.output_dir) is not None:
            return self.load(AUTO)
        return self.load(started_from) if started_from not in (None, AUTO) else None

    def _require_finite(self, state: TrainState) -> None:
        # Every process asks, and the same weights give the same answer; statistics are looked at in every batch.
        parts = self.parts
        kinds = {"weights": parts.model.state_dict(), "optimizer": parts.optimizer.state_dict()}
        if parts.ema:
            kinds["averaged weights"] = parts.ema.model.state_dict()
        for kind, tensors in kinds.items():
            names = names_not_finite({name: each for name, each in tensors.items() if isinstance(each, paddle.Tensor)})
            if names:
                raise NumericsError(
                    f"step {state.step}: not saved, as something in the {kind} is not finite: {names[0]} "
                    f"({len(names)} such); the last checkpoint is good, continue from it with a smaller learning rate"
                )

    def _snapshot(self, path: Path, state: TrainState) -> Snapshot:
        parts = self.parts
        tensors: dict[str, Arrays] = {
            "model.safetensors": weights_of(parts.model),
            "optimizer.safetensors": optimizer_tensors(parts.optimizer, parts.model),
        }
        if parts.ema:
            tensors["ema.safetensors"] = weights_of(parts.ema.model)
        schedule = {**parts.schedule.state_dict(), "by_epoch": parts.schedule.by_epoch}
        text = self._state_text(state, schedule, parts.precision.state_dict())
        return Snapshot(path, "checkpoint", tensors, {"state.json": text})

    def _clean_up(self, path: Path, epoch: int) -> None:
        """In the writer's thread, after a checkpoint."""
        logger.info("[Save][Epoch %d] %s", epoch, path)
        self._trust.give(path)
        prune(self.directory, path, self.save_interval, self.keep_max, self._trust)
        if self.after_save:
            self.after_save()

    def _state_text(self, state: TrainState, schedule: Mapping[str, Any], precision: Mapping[str, Any]) -> str:
        best = None if state.best is None else {"value": state.best, "epoch": state.best_epoch}
        stored = {
            "epoch": state.epoch,
            "updates_of_epoch": state.batch // self.pace.batches_per_update,
            "step": state.step,
            "best": best,
            "metrics": state.metrics,
            "sums": state.sums if state.batch else [],
            "non_finite": state.non_finite,
            "left_out": state.left_out,
            "pieces": state.pieces,
            "schedule": schedule,
            "precision": precision,
            "optimizer": type(self.parts.optimizer).__name__,
            "updates_per_epoch": self.pace.updates_per_epoch,
            "images_per_update": self.pace.images_per_update,
            "images": self.pace.images,
            **self.description,
        }
        if schedule:
            stored["learning_rate"] = self.parts.schedule.get_lr()
            stored["config"] = self._stored_config
        return json.dumps(stored, indent=1)


def _place(state: TrainState) -> Place:
    return state.epochs_done, state.step if state.batch else 0
