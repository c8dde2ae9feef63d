# SPDX-License-Identifier: Apache-2.0
"""What a run says of itself for those who look later: where it ran, and why it ended."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
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
from ppcls.utils.storage import write_text

if TYPE_CHECKING:
    from ppcls.engine.trainer import TrainState

_TAIL_BYTES = 2**16
_SIGNAL_BASE = 128
"""A process that a signal has ended answers with this plus the signal's number."""


class RunRecord:
    """Writes ``environment.json`` when a training starts, and a last line of ``train.jsonl`` when it ends.

    A context manager around the training. A run that ends before `start` leaves nothing: its directory may hold what
    another run wrote. A run that is killed leaves no line of its end, which the next start says.

    Args:
        directory: the run's output directory.
        epochs: the epoch to end after.
    """

    def __init__(self, directory: Path, epochs: int) -> None:
        self.directory = directory
        self.epochs = epochs
        self.state: TrainState | None = None
        self._missing: str | None = None

    def __enter__(self) -> RunRecord:
        """Nothing is written yet; a new run sets aside what the one before it wrote, so that is read now."""
        self._missing = missing_end(self.directory)
        return self

    def start(self, state: TrainState, device: str) -> None:
        """Write down the environment; say what has changed in it since the last start, and if that had no end."""
        self.state = state
        if self._missing:
            logger.warning("%s", self._missing)
        now = {"ppcls": __version__, **environment(sys.argv, device, dist.world_size())}
        path = self.directory / ENVIRONMENT
        if differences := changes(_read(path) or now, now):
            logger.warning("not as at the last start of this run: %s", "; ".join(differences))
        write_text(path, json.dumps({"time": round(time.time(), 3), **now}, indent=1) + "\n")

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


def missing_end(directory: Path) -> str | None:
    """Return what there is to say when the last start in a directory has left no word of its end, else None."""
    started = (_read(directory / ENVIRONMENT) or {}).get("time")
    if not isinstance(started, (int, float)):
        return None
    # A line that has no time is none of ours.
    told = (record for record in _from_the_end(directory / JSON_LINES) if isinstance(record.get("time"), float))
    last = next((record for record in told if record["time"] >= started), None)
    if last is not None and last.get("event") == "exit":
        return None
    where = "before it had logged anything"
    if last is not None:
        where = f"in epoch {last.get('epoch')}, after step {last.get('step')} at least"
    when = time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(started))
    return f"the last start here ({when}) ended without a word, as after kill -9 or a loss of power, {where}"


def _from_the_end(path: Path) -> Iterator[dict]:
    """The last records of a file, the last one first."""
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _TAIL_BYTES, 0))
            lines = file.read().splitlines()
    except OSError:
        return
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except ValueError:
            continue  # half a line
        if isinstance(record, dict):
            yield record


def _read(path: Path) -> dict | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None  # the first start, or one that was cut off while it wrote
    return found if isinstance(found, dict) else None
