# SPDX-License-Identifier: Apache-2.0
"""What a run says of itself for those who look later: where it ran, and why it ended."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ppcls import __version__
from ppcls.engine.callbacks import JsonLines
from ppcls.engine.run_directory import ENVIRONMENT, JSON_LINES
from ppcls.utils import dist
from ppcls.utils.cli import exit_code_of
from ppcls.utils.environment import changes, environment, hide_secrets
from ppcls.utils.logger import logger

if TYPE_CHECKING:
    from ppcls.engine.trainer import TrainState

_SIGNAL_BASE = 128
"""A process that a signal has ended answers with this plus the signal's number."""


class RunRecord:
    """Writes ``environment.json`` when a training starts, and a last line of ``train.jsonl`` when it ends.

    A context manager around the training. A run that ends before `start` leaves nothing: its directory may hold what
    another run wrote. A run that is killed leaves no line of its end.

    Args:
        directory: the run's output directory.
        epochs: the epoch to end after.
    """

    def __init__(self, directory: Path, epochs: int) -> None:
        self.directory = directory
        self.epochs = epochs
        self.state: TrainState | None = None

    def __enter__(self) -> RunRecord:
        """Nothing is written yet."""
        return self

    def start(self, state: TrainState, device: str) -> None:
        """Write down the environment; say what has changed in it since the run was last started."""
        self.state = state
        now = {"ppcls": __version__, **environment(sys.argv, device, dist.world_size())}
        path = self.directory / ENVIRONMENT
        if differences := changes(_read(path) or now, now):
            logger.warning("not as at the last start of this run: %s", "; ".join(differences))
        path.write_text(json.dumps({"time": round(time.time(), 3), **now}, indent=1) + "\n", encoding="utf-8")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Write down how it ended."""
        state = self.state
        if state is None:
            return
        record = {"event": "exit", "reason": self._reason(error), "exit_code": exit_code_of(error)}
        place = {"epoch": state.epoch, "batch": state.batch, "step": state.step}
        try:
            JsonLines(self.directory / JSON_LINES)({**record, **place})
        except OSError as failure:
            # The disk may be what ended the run; that is the error to show.
            logger.warning("%s: the end of the run cannot be written (%s)", failure.filename, failure.strerror)

    def _reason(self, error: BaseException | None) -> str:
        if error is None:
            return "finished" if self.state and self.state.epochs_done >= self.epochs else "stopped"
        return reason_of(error)


def reason_of(error: BaseException) -> str:
    """Return in one line why a run ended: a signal's number, or what kind of error it was and what it says."""
    code = exit_code_of(error)
    if code > _SIGNAL_BASE:
        return f"stopped by signal {code - _SIGNAL_BASE}"
    first = next(iter(str(error).splitlines()), "")
    return hide_secrets(f"{type(error).__name__}: {first}" if first else type(error).__name__)


def _read(path: Path) -> dict | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None  # the first start, or one that was cut off while it wrote
    return found if isinstance(found, dict) else None
