# SPDX-License-Identifier: Apache-2.0
"""Parts that cost nothing are built once at load time: their constructors check what types cannot say."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

from ppcls.config.annotation import parameters_of
from ppcls.config.node import Node
from ppcls.config.problem import Problems
from ppcls.config.registry import BATCH_OPS, LOSSES, METRICS, SCHEDULES, TRANSFORMS, Call
from ppcls.config.schema import ArchSettings, GlobalSettings

SOME_EPOCHS = 10_000
"""What a schedule is tried with when the section Global has an error of its own."""
CHEAP = (TRANSFORMS, BATCH_OPS, LOSSES, METRICS, SCHEDULES)


def try_parts(problems: Problems) -> None:
    """Build transforms, batch operations, losses, metrics and schedules; note what they refuse and warn of."""
    runtime: dict[str, Any] = {"step_each_epoch": 1000, "epochs": SOME_EPOCHS}
    for settings in (call.kwargs for _, call in problems.parts if call.target is GlobalSettings):
        runtime["epochs"] = settings.get("epochs", GlobalSettings.epochs)
    for model in (call.kwargs["model"] for _, call in problems.parts if call.target is ArchSettings):
        default = parameters_of(model.target).get("class_num")
        runtime["class_num"] = model.kwargs.get("class_num", default.default if default else None)
    failed: list[Call] = []
    for path, call in problems.parts:
        if not _is_cheap(call) or any(_holds(value, failed) for value in call.kwargs.values()):
            continue
        supplied = [name for name in parameters_of(call.target) if name in call.runtime]
        if "class_num" in supplied and not isinstance(runtime.get("class_num"), int):
            continue  # the section Arch has an error of its own, or a model that says nothing of classes
        is_plain = path.endswith(call.name) or is_dataclass(call.target)
        here = path if is_plain else f"{path}: {call.name}"
        with _log_messages() as messages:
            try:
                call(**{key: value for key, value in runtime.items() if key in supplied})
            except (ValueError, TypeError) as error:
                failed.append(call)
                problems.error(Node(None, call.where), here, str(error))
        problems.warnings.extend(f"{call.where}: {here}: {message}" for message in messages)


def _is_cheap(call: Call) -> bool:
    in_registry = any(call.name in registry and registry[call.name] is call.target for registry in CHEAP)
    return in_registry or hasattr(call.target, "__post_init__")


def _holds(value: Any, failed: list[Call]) -> bool:
    """Whether one of the calls is the value or somewhere in it."""
    if isinstance(value, list):
        return any(_holds(item, failed) for item in value)
    if not isinstance(value, Call):
        return False
    is_failed = any(value.kwargs is call.kwargs for call in failed)  # the owner may have replaced other fields
    return is_failed or any(_holds(item, failed) for item in value.kwargs.values())


@contextlib.contextmanager
def _log_messages() -> Iterator[list[str]]:
    """Collect what is logged meanwhile, instead of showing it without its line of the file."""
    messages: list[str] = []
    collector = logging.Handler()
    collector.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("ppcls")
    handlers, propagate = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [collector], False
    try:
        yield messages
    finally:
        logger.handlers, logger.propagate = handlers, propagate
