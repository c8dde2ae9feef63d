# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: written whole or not at all, trusted only while they verify, enough to continue to the bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn
from safetensors.numpy import save

from ppcls.arch.pretrained import load_weights, read_weights
from ppcls.engine.ema import ModelEMA
from ppcls.engine.optimizer_state import optimizer_tensors, restore_optimizer
from ppcls.engine.precision import Precision
from ppcls.engine.resume_point import find_checkpoint
from ppcls.engine.run_directory import BEST, Place, Trust, best_epoch, clear, directory_of, name_of, prune, set_aside
from ppcls.engine.trainer import TrainState
from ppcls.optimizer import Schedule
from ppcls.utils import dist
from ppcls.utils.errors import ConfigError, DataError, StorageError
from ppcls.utils.logger import logger
from ppcls.utils.storage import published


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
    """

    updates_per_epoch: int
    batches_per_update: int
    images_per_update: int


class Checkpointer:
    """Saves and restores a training in ``epoch_N`` and ``epoch_N_step_S``, and its best weights in ``best_model``.

    Args:
        output_dir: where these directories appear.
        parts: what is saved and restored.
        pace: how the training goes on; a checkpoint has to fit it.
        save_interval: checkpoints of epochs divisible by it are kept; the newest two always are. 0: only those.
        keep_max: keep the newest so many, whatever ``save_interval`` says.
        on_all_ranks: every process writes checkpoints, process r to ``output_dir/rank_r``.
        description: written into every checkpoint; a checkpoint of other ``class_names`` is not continued.
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
    ) -> None:
        self.output_dir = Path(output_dir)
        self.parts = parts
        self.pace = pace
        self.save_interval = save_interval
        self.keep_max = keep_max
        self.writes = on_all_ranks or dist.is_main()
        self.directory = directory_of(dist.rank(), self.output_dir)
        self.description = description or {}
        self._trust = Trust()

    def save(self, state: TrainState) -> None:
        """Write the checkpoint of an epoch that has just ended, or runs; then remove those that are not kept.

        Raises:
            StorageError: it cannot be written; what was there before is untouched.
            PeerError: another process cannot write its own.
        """
        with dist.together():
            if self.writes:
                path = self.directory / name_of(_place(state))
                self._write(path, state)
                logger.info("[Save][Epoch %d] %s", state.epoch, path)
                self._trust.give(path)
                prune(self.directory, path, self.save_interval, self.keep_max, self._trust)

    def save_best(self, state: TrainState) -> None:
        """Write the weights that evaluation has just used (the averaged ones, with EMA) as the best.

        Raises:
            StorageError: they cannot be written; the former best is untouched.
            PeerError: the first process, which writes them, cannot.
        """
        with dist.together():
            if dist.is_main():
                model = self.parts.ema.model if self.parts.ema else self.parts.model
                with published(self.output_dir / BEST, "best weights", owns_name=True) as partial:
                    _write(weights_of(model), partial / "model.safetensors")
                    self._write_state(partial, state, {}, {})

    def start(self, source: str | None) -> TrainState:
        """Begin a training, or go on with one; what an earlier one left in the output directory is set aside.

        The directory has to be this run's alone: what a run that was killed had not finished there is removed.

        Args:
            source: as in `load`; ``None`` begins anew.

        Raises:
            StorageError: as in `load`.
        """
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
            ConfigError: its epochs or updates are not those of this training.
            DataError: its classes are not those of this training.
            PeerError: another process cannot restore it.
        """
        path = find_checkpoint(source, self.output_dir)
        if path is None:
            logger.info("checkpoints: auto: no checkpoint in %s yet, starting from the beginning", self.output_dir)
            return TrainState()
        with dist.together():
            state = self._restore(path)
        inside = f" and {state.batch} batches of epoch {state.epoch}" if state.batch else ""
        logger.info("continuing from %s: %d epochs%s, step %d are done", path, state.epochs_done, inside, state.step)
        return state

    def _restore(self, path: Path) -> TrainState:
        stored = json.loads((path / "state.json").read_text(encoding="utf-8"))
        parts = self.parts
        self._require_same_classes(path, stored)
        self._require_same_optimizer(path, stored)
        self._require_same_pace(path, stored)
        load_weights(parts.model, read_weights(path / "model.safetensors"), str(path), allow="none")
        tensors = read_weights(path / "optimizer.safetensors")
        restore_optimizer(parts.optimizer, parts.model, tensors, parts.schedule, str(path))
        averaged = path / "ema.safetensors"
        if averaged.exists() and not parts.ema:
            logger.warning("%s: its averaged weights (EMA) are left behind, as there is no EMA section", path)
        if parts.ema:
            if not averaged.exists():
                raise StorageError(f"{path}: has no averaged weights; remove the EMA section or start anew")
            load_weights(parts.ema.model, read_weights(averaged), str(path), allow="none")
        parts.schedule.set_state_dict(stored["schedule"])
        parts.precision.load_state_dict(stored["precision"])
        best = stored["best"] or {"value": None, "epoch": 0}
        return TrainState(
            epoch=stored["epoch"],
            batch=stored.get("updates_of_epoch", 0) * self.pace.batches_per_update,
            step=stored["step"],
            metrics=stored["metrics"],
            best=best["value"],
            best_epoch=best["epoch"],
            sums=stored.get("sums", []),
        )

    def _require_same_classes(self, path: Path, stored: Mapping[str, Any]) -> None:
        before, now = stored.get("class_names"), self.description.get("class_names")
        if before is None or now is None or before == now:
            return
        gone = [name for name in before if name not in now]
        new = [name for name in now if name not in before]
        told = [f"{names[0]!r} ({len(names)} such) is {how}" for names, how in ((gone, "gone"), (new, "new")) if names]
        if not told:
            number = next(number for number, name in enumerate(before) if name != now[number])
            told = [f"class {number} was {before[number]!r} and is {now[number]!r}"]
        raise DataError(
            f"{path}: was trained with other classes than the training set has now: {', '.join(told)}; "
            "make them the same, or start from its weights with Global.pretrained_model"
        )

    def _require_same_optimizer(self, path: Path, stored: Mapping[str, Any]) -> None:
        kind = type(self.parts.optimizer).__name__
        if stored.get("optimizer", kind) != kind:
            raise StorageError(
                f"{path}: was trained with {stored['optimizer']}, not {kind}; continue with the same optimizer, "
                f"or start from its weights with Global.pretrained_model"
            )

    def _require_same_pace(self, path: Path, stored: Mapping[str, Any]) -> None:
        # The schedule counts updates: with other epochs it would stand at another place than the training does.
        before, now = stored["updates_per_epoch"], self.pace.updates_per_epoch
        if before != now:
            raise ConfigError(
                f"{path}: an epoch had {before} updates and has {now} now, so the learning rate would not fit; keep "
                "data set, batch size x processes and update_freq, or start from its weights with "
                "Global.pretrained_model"
            )
        before, now = stored.get("images_per_update"), self.pace.images_per_update
        if stored.get("updates_of_epoch") and before != now:
            raise ConfigError(
                f"{path}: the epoch was left after updates of {before} images, and an update has {now} now; keep "
                "batch size x processes x update_freq, or continue from the end of an epoch"
            )

    def _write(self, path: Path, state: TrainState) -> None:
        parts = self.parts
        with published(path, "checkpoint", owns_name=True) as partial:
            _write(weights_of(parts.model), partial / "model.safetensors")
            _write(optimizer_tensors(parts.optimizer, parts.model), partial / "optimizer.safetensors")
            if parts.ema:
                _write(weights_of(parts.ema.model), partial / "ema.safetensors")
            self._write_state(partial, state, parts.schedule.state_dict(), parts.precision.state_dict())

    def _write_state(
        self, directory: Path, state: TrainState, schedule: Mapping[str, Any], precision: Mapping[str, Any]
    ) -> None:
        best = None if state.best is None else {"value": state.best, "epoch": state.best_epoch}
        stored = {
            "epoch": state.epoch,
            "updates_of_epoch": state.batch // self.pace.batches_per_update,
            "step": state.step,
            "best": best,
            "metrics": state.metrics,
            "sums": state.sums if state.batch else [],
            "schedule": schedule,
            "precision": precision,
            "optimizer": type(self.parts.optimizer).__name__,
            "updates_per_epoch": self.pace.updates_per_epoch,
            "images_per_update": self.pace.images_per_update,
            **self.description,
        }
        (directory / "state.json").write_text(json.dumps(stored, indent=1), encoding="utf-8")


def _place(state: TrainState) -> Place:
    return state.epochs_done, state.step if state.batch else 0


def _write(tensors: dict[str, np.ndarray], path: Path) -> None:
    # Not safetensors' own writer: what the system refuses (a full disk) has to be an OSError.
    path.write_bytes(save(tensors))


def weights_of(model: nn.Layer) -> dict[str, np.ndarray]:
    """Every entry of the state dict as an array; bfloat16 as float32, which holds it exactly."""
    return {name: array_of(tensor) for name, tensor in model.state_dict().items()}


def array_of(tensor: paddle.Tensor) -> np.ndarray:
    """A tensor as a contiguous array; bfloat16 as float32."""
    if tensor.dtype == paddle.bfloat16:
        tensor = tensor.astype("float32")
    return np.ascontiguousarray(tensor.numpy())
