# SPDX-License-Identifier: Apache-2.0
"""Worker processes that died: of what, at which sample, and how often that may happen."""

from __future__ import annotations

import signal
from collections.abc import Callable

from ppcls.utils.errors import DataError
from ppcls.utils.logger import logger

MAX_DEATHS = 10
"""Of the workers of a pool, those aside that one sample is to blame for."""
MAX_DEATHS_OF_A_SAMPLE = 2
NO_MEMORY = 71
"""The exit code of a worker that ran out of memory."""


class Deaths:
    """Counts them, and says who is to blame.

    Args:
        named: (index, problem) -> the problem with the place of the sample.
        on_deadly: called with index and problem when a sample has ended its second worker: raises what ends the run,
            or returns, and the sample must not be touched any more.

    Attributes:
        deadly: index and problem of the samples that must not be touched.
    """

    def __init__(self, named: Callable[[int, str], str], on_deadly: Callable[[int, str], None]) -> None:
        self.named = named
        self.on_deadly = on_deadly
        self.deadly: dict[int, str] = {}
        self._num_deaths = 0
        self._of_samples: dict[int, int] = {}

    def note(self, pid: int, cause: str, index: int | None) -> None:
        """Say that a process has died, of what, and at which sample, if at one.

        Raises:
            DataError: too many have died in all.
        """
        self._num_deaths += 1
        if index is None:
            problem = f"worker process {pid} {cause} between two images"
        else:
            self._of_samples[index] = self._of_samples.get(index, 0) + 1
            again = ", as did another before it" if self._of_samples[index] >= MAX_DEATHS_OF_A_SAMPLE else ""
            problem = self.named(index, f"worker process {pid} {cause} while it made this image{again}")
            if again:
                self.on_deadly(index, problem)
                self.deadly[index] = problem
                return
        unexplained = self._num_deaths - sum(self._of_samples[index] for index in self.deadly)
        if unexplained > MAX_DEATHS:
            raise DataError(
                f"{unexplained} worker processes have died, the last: {problem}; if the system ends them because "
                "memory runs out, lower loader.num_workers or loader.prefetch_factor"
            )
        logger.warning("%s; another process takes its place", problem)


def cause_of(exit_code: int | None, hung_seconds: float | None) -> str:
    """Return in words what a process died of.

    Args:
        exit_code: as Python gives it: minus the number of a signal; None for one that has not ended yet.
        hung_seconds: after which it was ended, if it was for that.
    """
    if hung_seconds is not None:
        return f"was ended by SIGKILL, as it had made no progress for {hung_seconds:g} seconds (loader.timeout),"
    if exit_code is None:
        return "does not answer any more"
    if exit_code == NO_MEMORY:
        return "ran out of memory"
    if exit_code >= 0:
        return f"exited with code {exit_code}"
    name = signal.Signals(-exit_code).name if -exit_code in set(signal.Signals) else f"signal {-exit_code}"
    return f"was ended by {name}{' (as the system does when memory runs out)' if name == 'SIGKILL' else ''}"
