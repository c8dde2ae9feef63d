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
from ppcls.engine.run_directory import BEST, best_epoch, checkpoints_in, newest_valid, prune, set_aside
from ppcls.engine.trainer import TrainState
from ppcls.optimizer import Schedule
from ppcls.utils import dist
from ppcls.utils.errors import ConfigError, StorageError
from ppcls.utils.logger import logger
from ppcls.utils.storage import published, verify

LATEST = "latest"
AUTO = "auto"


@dataclass
class MovingParts:
    """What a training consists of, as far as it changes while it runs."""

    model: nn.Layer
    optimizer: paddle.optimizer.Optimizer
    schedule: Schedule
    precision: Precision
    ema: ModelEMA | None = None


class Checkpointer:
    """Saves and restores a training in ``directory/epoch_N``, and its best weights in ``directory/best_model``.

    Args:
        directory: the run's output directory.
        parts: what is saved and restored.
        save_interval: checkpoints of epochs divisible by it are kept; the newest two always are. 0: only those.
        updates_per_epoch: has to be the same when a checkpoint is continued.
        description: written into every checkpoint, for people.
    """

    def __init__(
        self,
        directory: str | Path,
        parts: MovingParts,
        save_interval: int,
        updates_per_epoch: int,
        description: dict[str, Any],
    ) -> None:
        self.directory = Path(directory)
        self.parts = parts
        self.save_interval = save_interval
        self.updates_per_epoch = updates_per_epoch
        self.description = description

    def save(self, state: TrainState) -> None:
        """Write the checkpoint of the epoch that has just ended, then remove those that are not kept.

        Raises:
            StorageError: it cannot be written; what was there before is untouched.
        """
        if dist.is_main():
            path = self.directory / f"epoch_{state.epoch}"
            parts = self.parts
            with published(path, "checkpoint", owns_name=True) as partial:
                _write(weights_of(parts.model), partial / "model.safetensors")
                _write(optimizer_tensors(parts.optimizer, parts.model), partial / "optimizer.safetensors")
                if parts.ema:
                    _write(weights_of(parts.ema.model), partial / "ema.safetensors")
                self._write_state(partial, state, parts.schedule.state_dict(), parts.precision.state_dict())
            logger.info("[Save][Epoch %d] %s", state.epoch, path)
            prune(self.directory, state.epoch, self.save_interval)
        dist.barrier()

    def save_best(self, state: TrainState) -> None:
        """Write the weights that evaluation has just used (the averaged ones, with EMA) as the best.

        Raises:
            StorageError: they cannot be written; the former best is untouched.
        """
        if dist.is_main():
            model = self.parts.ema.model if self.parts.ema else self.parts.model
            with published(self.directory / BEST, "best weights", owns_name=True) as partial:
                _write(weights_of(model), partial / "model.safetensors")
                self._write_state(partial, state, {}, {})
        dist.barrier()

    def start(self, source: str | None) -> TrainState:
        """Begin a training, or go on with one; what an earlier one left in the output directory is set aside.

        Args:
            source: as in `load`; ``None`` begins anew.

        Raises:
            StorageError: as in `load`.
        """
        state = self.load(source) if source else TrainState()
        kept = dist.gathered(best_epoch(self.directory))[0]
        if state.best is not None and kept != state.best_epoch:
            logger.warning(
                "the best weights so far, of epoch %d, are not in this run; best begins anew", state.best_epoch
            )
            state.best, state.best_epoch = None, 0
        if dist.is_main():
            aside = set_aside(self.directory, state.epoch)
            if aside:
                logger.warning("%s: what an earlier run left there is now in %s", self.directory, aside.name)
        dist.barrier()
        return state

    def load(self, source: str) -> TrainState:
        """Restore a training.

        Args:
            source: a checkpoint directory; ``auto`` for the newest that verifies in the output directory, or a
                fresh start when there is none; ``<directory>/latest`` for the newest there.

        Raises:
            StorageError: it is not there, does not verify, or is of another model or optimizer; or there are
                checkpoints in the output directory and none verifies.
        """
        path = self._find(source)
        if path is None:
            logger.info("checkpoints: auto: no checkpoint in %s yet, starting from the beginning", self.directory)
            return TrainState()
        stored = json.loads((path / "state.json").read_text(encoding="utf-8"))
        parts = self.parts
        self._require_same_optimizer(path, stored)
        self._require_same_updates(path, stored)
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
        logger.info("continuing from %s: epoch %d, step %d are done", path, stored["epoch"], stored["step"])
        return TrainState(
            epoch=stored["epoch"],
            step=stored["step"],
            metrics=stored["metrics"],
            best=best["value"],
            best_epoch=best["epoch"],
        )

    def _find(self, source: str) -> Path | None:
        if source == AUTO:
            newest = newest_valid(self.directory)
            if newest is None and (damaged := checkpoints_in(self.directory)):
                raise StorageError(
                    f"checkpoints: auto: none of the {len(damaged)} checkpoints in {self.directory} can be used; "
                    "move them away, or leave Global.checkpoints out, to start from the beginning"
                )
            return newest
        path = Path(source)
        if path.name == LATEST and not path.exists():
            newest = newest_valid(path.parent)
            if newest is None:
                raise StorageError(f"{source}: there is no checkpoint in {path.parent}")
            return newest
        if not path.is_dir():
            raise StorageError(f"{source}: no such checkpoint; give a directory such as output/epoch_5, or 'auto'")
        try:
            files = verify(path)["files"]
        except StorageError as error:
            inside = newest_valid(path, quiet=True)
            previous = inside or newest_valid(path.parent, quiet=True)
            advice = f"the newest good one is {previous}" if previous else "there is no good one beside it"
            raise StorageError(f"{error}; {advice}") from error
        if "optimizer.safetensors" not in files:
            raise StorageError(f"{source}: holds weights only; start from it with Global.pretrained_model instead")
        return path

    def _require_same_optimizer(self, path: Path, stored: Mapping[str, Any]) -> None:
        kind = type(self.parts.optimizer).__name__
        if stored.get("optimizer", kind) != kind:
            raise StorageError(
                f"{path}: was trained with {stored['optimizer']}, not {kind}; continue with the same optimizer, "
                f"or start from its weights with Global.pretrained_model"
            )

    def _require_same_updates(self, path: Path, stored: Mapping[str, Any]) -> None:
        # The schedule counts updates: with other epochs it would stand at another place than the training does.
        before, now = stored["updates_per_epoch"], self.updates_per_epoch
        if before != now:
            raise ConfigError(
                f"{path}: an epoch had {before} updates and has {now} now, so the learning rate would not fit; keep "
                "data set, batch size x processes and update_freq, or start from its weights with "
                "Global.pretrained_model"
            )

    def _write_state(
        self, directory: Path, state: TrainState, schedule: Mapping[str, Any], precision: Mapping[str, Any]
    ) -> None:
        best = None if state.best is None else {"value": state.best, "epoch": state.best_epoch}
        stored = {
            "epoch": state.epoch,
            "step": state.step,
            "best": best,
            "metrics": state.metrics,
            "schedule": schedule,
            "precision": precision,
            "optimizer": type(self.parts.optimizer).__name__,
            "updates_per_epoch": self.updates_per_epoch,
            **self.description,
        }
        (directory / "state.json").write_text(json.dumps(stored, indent=1), encoding="utf-8")


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
