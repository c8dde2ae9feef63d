# SPDX-License-Identifier: Apache-2.0
"""A training goes on from a checkpoint: what the two have to have in common, and how its state comes back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from ppcls.arch.pretrained import load_weights, read_weights
from ppcls.engine.changed_config import Changes, ComparedConfig, changes
from ppcls.engine.optimizer_state import MASTER, restore_optimizer
from ppcls.engine.stored_state import StoredState, read_state
from ppcls.engine.trainer import TrainState
from ppcls.utils.errors import ConfigError, DataError, StorageError
from ppcls.utils.logger import logger
from ppcls.utils.manifest import read_manifest

if TYPE_CHECKING:
    from ppcls.engine.checkpoint import MovingParts, Pace

FROM_WEIGHTS = "start from its weights with Global.pretrained_model"


def restore_training(
    path: Path,
    parts: MovingParts,
    pace: Pace,
    class_names: list[str] | None = None,
    config: ComparedConfig | None = None,
) -> TrainState:
    """Fill the parts of a training with what a checkpoint holds; a changed configuration is refused before that.

    Args:
        path: a checkpoint that verifies.
        parts: what is filled.
        pace: how this training goes on.
        class_names: the classes of this training; None where they are not known.
        config: the configuration of this training; None compares none.

    Raises:
        StorageError: the checkpoint is of another model or optimizer, or says what cannot be meant.
        ConfigError: the configuration has changed in a way that it cannot go on with.
        DataError: it is of other classes, or was left within an epoch of another number of images.
    """
    files = read_manifest(path)[1]
    stored = read_state(path)
    _require_same_classes(path, stored, class_names)
    changed = Changes() if config is None else _changes(path, stored, config, parts)
    _require_same_optimizer(path, stored, parts)
    _require_same_pace(path, stored, parts, pace)
    weights, tensors = (read_weights(path / f"{name}.safetensors") for name in ("model", "optimizer"))
    averages = read_weights(path / "ema.safetensors") if "ema.safetensors" in files else None
    _require_same_copies(path, set(tensors), parts)
    if parts.ema and averages is None:
        raise StorageError(f"{path}: has no averaged weights; remove the EMA section or start anew")
    if averages is not None and not parts.ema:
        logger.warning("%s: its averaged weights (EMA) are left behind, as there is no EMA section", path)
    load_weights(parts.model, weights, str(path), allow="none")
    restore_optimizer(parts.optimizer, parts.model, tensors, parts.schedule, str(path))
    if parts.ema and averages is not None:
        load_weights(parts.ema.model, averages, str(path), allow="none")
    parts.schedule.set_state_dict({"last_epoch": stored.last_epoch})
    parts.precision.load_state_dict(stored.precision)
    keeps_best = not changed.is_measured_otherwise
    return TrainState(
        epoch=stored.epoch,
        batch=stored.updates_of_epoch * pace.batches_per_update,
        step=stored.step,
        metrics=stored.metrics,
        best=stored.best if keeps_best else None,
        best_epoch=stored.best_epoch if keeps_best else 0,
        sums=stored.sums,
        non_finite=stored.non_finite,
        left_out=stored.left_out,
        pieces=stored.pieces,
    )


def _changes(path: Path, stored: StoredState, config: ComparedConfig, parts: MovingParts) -> Changes:
    before, is_whole = stored.config, stored.config is not None
    if before is None:
        logger.warning(
            "%s: was saved by an earlier version, without its configuration; only architecture, optimizer, classes "
            "and the number of updates in an epoch are compared",
            path,
        )
        arch = {"name": stored.arch, "class_num": stored.class_num}
        before = {
            "Arch": {key: value for key, value in arch.items() if value is not None},
            "Optimizer": {"name": stored.optimizer} if stored.optimizer else {},
        }
    rate_before, rate_now = stored.learning_rate, parts.schedule.rate(stored.last_epoch or 0)
    keeps_rate = rate_before is None or math.isclose(rate_before, rate_now, rel_tol=1e-9)
    found = changes(before, config, is_whole, bool(stored.updates_of_epoch), keeps_rate)
    for text in found.told:
        logger.warning("changed since %s: %s", path, text)
    if not keeps_rate:
        logger.warning("changed since %s: the learning rate of the next update: %g -> %g", path, rate_before, rate_now)
    if found.refused:
        raise ConfigError([f"{path}: {text}" for text in found.refused])
    return found


def _require_same_classes(path: Path, stored: StoredState, now: list[str] | None) -> None:
    before = stored.class_names
    if before is None or now is None or before == now:
        return
    gone = [name for name in before if name not in now]
    new = [name for name in now if name not in before]
    told = [f"{names[0]!r} ({len(names)} such) is {how}" for names, how in ((gone, "gone"), (new, "new")) if names]
    if not told:
        number = next(number for number, name in enumerate(before) if name not in now[number : number + 1])
        told = [f"class {number} was {before[number]!r} and is {now[number]!r}"]
    raise DataError(
        f"{path}: was trained with other classes than the training set has now: {', '.join(told)}; "
        f"make them the same, or {FROM_WEIGHTS}"
    )


def _require_same_optimizer(path: Path, stored: StoredState, parts: MovingParts) -> None:
    kind = type(parts.optimizer).__name__
    if stored.optimizer not in (None, kind):
        raise StorageError(
            f"{path}: was trained with {stored.optimizer}, not {kind}; continue with the same optimizer, "
            f"or {FROM_WEIGHTS}"
        )


def _require_same_pace(path: Path, stored: StoredState, parts: MovingParts, pace: Pace) -> None:
    if stored.last_epoch is None:
        raise StorageError(f"{path}: does not say how far its learning rate was, so it is not a checkpoint")
    # The schedule counts updates: with other epochs it would stand at another place than the training does.
    if stored.updates_per_epoch != pace.updates_per_epoch:
        raise ConfigError(
            f"{path}: an epoch had {stored.updates_per_epoch} updates and has {pace.updates_per_epoch} now, so the "
            "learning rate would not fit; keep data set, batch size x processes and update_freq, or " + FROM_WEIGHTS
        )
    if stored.by_epoch not in (None, parts.schedule.by_epoch):
        units = ("epochs", "updates") if stored.by_epoch else ("updates", "epochs")
        raise ConfigError(
            f"{path}: Optimizer.lr: the schedule counted {units[0]} and counts {units[1]} now (by_epoch), so the "
            f"learning rate would not fit; keep it, or {FROM_WEIGHTS}"
        )
    if None not in (stored.images, pace.images) and stored.images != pace.images:
        text = f"{path}: the training set had {stored.images} images and has {pace.images} now"
        if stored.updates_of_epoch:
            raise DataError(
                f"{text}, so the rest of the epoch would not be what was left of it; make it the same, or continue "
                "from the end of an epoch"
            )
        logger.warning("%s", text)
    if stored.updates_of_epoch and stored.images_per_update != pace.images_per_update:
        raise ConfigError(
            f"{path}: the epoch was left after updates of {stored.images_per_update} images, and an update has "
            f"{pace.images_per_update} now; keep batch size x processes x update_freq, or continue from the end of "
            "an epoch"
        )


def _require_same_copies(path: Path, names: set[str], parts: MovingParts) -> None:
    # With O2 the weights are small, and what was learned is in the optimizer's full copies of them.
    had = any(name.endswith(f"/{MASTER}") for name in names)
    has = parts.precision.level == "O2"
    if names and had != has:
        levels = ("AMP.level O2", "another") if had else ("another AMP.level", "O2")
        raise ConfigError(
            f"{path}: was trained with {levels[0]} and goes on with {levels[1]}, which would round its weights; "
            f"keep the level, or {FROM_WEIGHTS}"
        )
