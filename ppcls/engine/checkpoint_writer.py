# SPDX-License-Identifier: Apache-2.0
"""Saves that run beside the training: one at a time, in order, and what becomes of those that fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ppcls.engine.background import Background
from ppcls.engine.snapshot import Snapshot
from ppcls.utils import dist
from ppcls.utils.errors import PeerError, PpclsError, StorageError
from ppcls.utils.lock import hold_again
from ppcls.utils.logger import logger

OnError = Literal["continue", "stop"]
MAX_FAILURES = 3
"""So many saves in a row that fail end a training, whatever it was told to do about a failure."""


class CheckpointWriter:
    """Writes snapshots in a thread. A save is what one call of `begin` hands over; the next one waits for it.

    So which checkpoints there are does not depend on how fast the disk is, and no more than one snapshot waits in
    memory. What all processes have to know, whether one of them failed, is settled before the next save, after an
    update (see `has_failed`) and at the end; in between no process waits for another.

    Args:
        directory: what this process writes to; made again if it vanishes.
        on_error: what a save that fails means.
    """

    def __init__(self, directory: Path, on_error: OnError = "stop") -> None:
        self.directory = directory
        self.on_error = on_error
        self._background = Background()
        self._is_settled = True
        self._best: Snapshot | None = None
        self._is_staged = False
        self._unwritten: Snapshot | None = None
        self._last_good: Path | None = None
        self._num_failures = 0

    @property
    def has_failed(self) -> bool:
        """Whether a save of this process has failed and nobody has settled it yet."""
        return self._background.has_failed

    def stage(self, best: Snapshot | None) -> None:
        """Have best weights written by the next save, before the checkpoint that mentions them.

        All processes call it, those that do not write them with None.
        """
        self._best, self._is_staged = best, True

    def begin(self, checkpoint: Snapshot | None = None, then: Callable[[], None] | None = None) -> None:
        """Write what is staged, and a checkpoint, if this process has any; `settle` comes first.

        Args:
            checkpoint: what to write.
            then: called in the thread once that is on the disk.
        """
        self._is_settled = self._is_staged = False
        self._unwritten, self._best = self._best, None
        if checkpoint or self._unwritten:
            self._background.start(lambda: self._write(checkpoint, then))

    def settle(self, is_last: bool = False) -> None:
        """Wait for what is being written, and act in all processes on what could not be.

        Args:
            is_last: no other save will make up for a failure.

        Raises:
            StorageError: a save of this process failed, and that ends the training.
            PeerError: one of another process did.
        """
        if self._is_settled:
            return
        failure = self._background.wait()
        self._is_settled = True
        # Best weights that could not be written are tried again, unless there are better ones by now.
        self._best, self._unwritten = self._best or self._unwritten, None
        failures = dist.gathered(None if failure is None else _told(failure))
        told = [f"process {number}: {text}" if number else text for number, text in enumerate(failures) if text]
        if failure is not None and not isinstance(failure, (PpclsError, OSError)):
            raise failure
        if not told:
            self._num_failures = 0
            return
        self._num_failures += 1
        if self.on_error == "continue" and not is_last and self._num_failures < MAX_FAILURES:
            logger.warning(
                "[Save] %s; the training goes on, and the next save tries again (failure %d; %d in a row end it)",
                *(told[0], self._num_failures, MAX_FAILURES),
            )
            return
        text = told[0] if failure is None else _told(failure)
        count = f"; {self._num_failures} saves in a row have failed" if self._num_failures > 1 else ""
        good = f"the last good checkpoint is {self._last_good}" if self._last_good else "none was written before it"
        error = PeerError if failure is None else StorageError
        raise error(f"{text}{count}; {good}") from failure

    def finish(self) -> None:
        """Write what is still staged and wait for everything, as `settle` does, for the last time."""
        self.settle(is_last=not self._is_staged)
        if self._is_staged:
            self.begin()
            self.settle(is_last=True)

    def give_up(self) -> None:
        """Wait for what is being written; that the training has failed is worse than if this fails too."""
        failure = self._background.wait()
        self._is_settled = True
        if failure is not None:
            logger.error("[Save] %s", _told(failure))

    def _write(self, checkpoint: Snapshot | None, then: Callable[[], None] | None) -> None:
        if hold_again(self.directory):
            logger.warning("%s: was removed while this run wrote there; it is made again, empty", self.directory)
        if self._unwritten:
            self._unwritten.write()
            self._unwritten = None
        if checkpoint:
            checkpoint.write()
            self._last_good = checkpoint.path
        if then:
            then()


def _told(error: BaseException) -> str:
    if isinstance(error, PpclsError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'a checkpoint'}: cannot be written ({error.strerror or error})"
    return f"{type(error).__name__}: {error}"
