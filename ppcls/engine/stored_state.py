# SPDX-License-Identifier: Apache-2.0
"""What ``state.json`` of a checkpoint says, each value checked before anything is done with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppcls.utils.errors import StorageError
from ppcls.utils.strict_json import read_json

STATE = "state.json"
_MAX_BYTES = 64 << 20
_MAX_DEPTH = 40
_MAX_COUNT = 2**53
_SUMS = {"names", "num_samples", "seconds", "parts", "metric"}


@dataclass(frozen=True)
class StoredState:
    """A training at the moment of a checkpoint, but for its tensors.

    What a checkpoint of an earlier version does not say is None.

    Attributes:
        epoch: the last one that was begun.
        step: optimizer updates so far.
        updates_of_epoch: those of an epoch that was left in its middle, else 0.
        metrics: the figures of the last evaluation.
        best: the best main figure so far, and None where there is none.
        best_epoch: when that was.
        sums: what each process had summed up in the epoch, as `Progress` takes it up.
        non_finite: updates that were left out for not being finite.
        left_out: the numbers of those that are to be left out when they come again.
        pieces: in which batches are computed, as `Pieces` takes it up.
        last_epoch: the step of the schedule, which is an epoch with ``by_epoch``; None beside best weights.
        by_epoch: whether it is.
        learning_rate: of the next update.
        precision: the loss scale and its counters; empty without loss scaling.
        updates_per_epoch: as in `Pace`.
        images_per_update: as in `Pace`.
        images: as in `Pace`.
        arch: the name of the architecture.
        class_num: its number of classes.
        class_names: theirs.
        optimizer: its name.
        config: the configuration, as far as `ppcls.engine.changed_config` compares it.
    """

    epoch: int
    step: int
    updates_of_epoch: int
    metrics: dict[str, float]
    best: float | None
    best_epoch: int
    sums: list[dict[str, Any]]
    non_finite: int
    left_out: list[int]
    pieces: dict[str, int | None]
    last_epoch: int | None
    by_epoch: bool | None
    learning_rate: float | None
    precision: dict[str, Any]
    updates_per_epoch: int
    images_per_update: int | None
    images: int | None
    arch: str | None
    class_num: int | None
    class_names: list[str] | None
    optimizer: str | None
    config: dict[str, Any] | None

    @property
    def place(self) -> tuple[int, int]:
        """How far the training was: the epochs that had ended, and in the middle of one the updates so far, else 0."""
        return (self.epoch - 1, self.step) if self.updates_of_epoch else (self.epoch, 0)


def read_state(directory: Path) -> StoredState:
    """Return what a checkpoint or best weights say of their training.

    Raises:
        StorageError: they say nothing, or not what can be meant.
    """
    path = directory / STATE
    try:
        return _state_of(read_json(path, _MAX_BYTES))
    except FileNotFoundError:
        raise StorageError(f"{directory}: holds no {STATE}, so it is not a checkpoint of a training") from None
    except ValueError as error:
        raise StorageError(f"{path}: is not the state of a training ({error})") from error


def read_class_names(directory: Path) -> list[str] | None:
    """Return the class names that weights were saved with; None where nothing beside them says so.

    Raises:
        StorageError: what lies beside them cannot be read.
    """
    if not (directory / STATE).is_file():
        return None
    found = read_json(directory / STATE, _MAX_BYTES)
    names = found.get("class_names") if isinstance(found, dict) else None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _state_of(found: Any) -> StoredState:
    if not isinstance(found, dict):
        raise ValueError("it is no mapping")

    def value(name: str, check: Callable[[Any], Any], default: Any = None, source: dict = found) -> Any:
        try:
            return check(source[name]) if source.get(name) is not None else default
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    def count(name: str, default: int | None = None) -> Any:
        number = value(name, _count, default)
        if number is None:
            raise ValueError(f"{name} is missing")
        return number

    best = value("best", _mapping, {})
    schedule = value("schedule", _mapping, {})
    state = StoredState(
        epoch=count("epoch"),
        step=count("step"),
        updates_of_epoch=count("updates_of_epoch", 0),
        metrics=value("metrics", _numbers, {}),
        best=value("value", _number, source=best),
        best_epoch=value("epoch", _count, 0, source=best),
        sums=value("sums", _sums, []),
        non_finite=count("non_finite", 0),
        left_out=value("left_out", _counts, []),
        pieces=value("pieces", _pieces, {}),
        last_epoch=value("last_epoch", _count, source=schedule),
        by_epoch=value("by_epoch", _is_true, source=schedule),
        learning_rate=value("learning_rate", _number),
        precision=value("precision", _loss_scale, {}),
        updates_per_epoch=count("updates_per_epoch"),
        images_per_update=value("images_per_update", _count),
        images=value("images", _count),
        arch=value("arch", _text),
        class_num=value("class_num", _count),
        class_names=value("class_names", _texts),
        optimizer=value("optimizer", _text),
        config=value("config", _plain_mapping),
    )
    # All of them are done where a signal has ended the run while it evaluated.
    if state.updates_of_epoch and not (state.epoch and state.updates_of_epoch <= state.updates_per_epoch):
        raise ValueError(
            f"{state.updates_of_epoch} updates of epoch {state.epoch} are done, and an epoch has "
            f"{state.updates_per_epoch}"
        )
    return state


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_COUNT:
        raise ValueError(f"expected a whole number from 0 on; got {value!r:.80}")
    return value


def _any_number(value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError(f"expected a number; got {value!r:.80}")
    return value


def _number(value: Any) -> float:
    if not math.isfinite(_any_number(value)):
        raise ValueError(f"expected a number that is finite; got {value}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError(f"expected a word; got {value!r:.80}")
    return value


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"expected a list of names; got {value!r:.80}")
    return value


def _counts(value: Any) -> list[int]:
    if not isinstance(value, list):
        raise ValueError(f"expected a list; got {value!r:.80}")
    return [_count(item) for item in value]


def _pieces(value: Any) -> dict[str, int | None]:
    sizes = _mapping(value)
    if sizes and (sizes.keys() != {"asked", "size"} or not _count(sizes["size"])):
        raise ValueError(f"expected how many images are asked for at once, and how many it became; got {value!r:.80}")
    if sizes.get("asked") is not None:
        _count(sizes["asked"])
    return sizes


def _is_true(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false; got {value!r:.80}")
    return value


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected a mapping; got {value!r:.80}")
    return value


def _numbers(value: Any) -> dict[str, float]:
    return {name: _any_number(item) for name, item in _mapping(value).items()}


def _plain_mapping(value: Any) -> dict[str, Any]:
    _require_flat(_mapping(value), _MAX_DEPTH)
    return value


def _require_flat(value: Any, depth: int) -> None:
    if not depth:
        raise ValueError("it is nested too deeply")
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            _require_flat(item, depth - 1)


def _loss_scale(value: Any) -> dict[str, Any]:
    state = _mapping(value)
    if not state:
        return state
    # Paddle's own scaler has the scale in a list.
    scale = state.get("scale")
    if _number(scale[0] if isinstance(scale, list) and len(scale) == 1 else scale) <= 0:
        raise ValueError(f"the loss scale is {scale}")
    for name in ("incr_count", "decr_count"):
        _count(state.get(name))
    for name in ("skipped", "stuck"):
        _count(state.get(name, 0))
    return state


def _sums(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise ValueError(f"expected a list; got {value!r:.80}")
    for sums in value:
        if _mapping(sums).keys() != _SUMS:
            raise ValueError(f"expected sums of an epoch; got {sums!r:.80}")
        _texts(sums["names"])
        _count(sums["num_samples"])
        _number(sums["seconds"])
        _numbers(sums["parts"])
    firsts = {(tuple(sums["parts"]), str(_shape(sums["metric"]))) for sums in value}
    if len(firsts) > 1:
        raise ValueError("the processes summed up different figures")
    return value


def _shape(value: Any, depth: int = _MAX_DEPTH) -> Any:
    """The shapes of a nested list of numbers."""
    if not isinstance(value, list):
        _number(value)
        return ()
    if not depth:
        raise ValueError("it is nested too deeply")
    return [_shape(item, depth - 1) for item in value]
