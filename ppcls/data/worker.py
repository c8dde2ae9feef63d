# SPDX-License-Identifier: Apache-2.0
"""One worker process, seen from its parent: how it is started, what it was sent, how it ends."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.reduction import ForkingPickler
from typing import Any

from ppcls.data.batch_maker import BatchMaker
from ppcls.data.shared_slots import SharedSlots
from ppcls.data.worker_process import Board, Task, work
from ppcls.utils.errors import DataError

END_SECONDS = 10.0
"""How long a process that ends may take; one that waits for a disk ends when that answers, and does nothing before."""
NUM_LOOKS = 3
"""So often a sample has to be found too slow before its process counts as hung."""


def can_fork() -> bool:
    """Whether processes can be started as copies of this one (not on Windows; unsafe on macOS)."""
    return "fork" in get_all_start_methods() and sys.platform != "darwin"


class Worker:
    """A process that makes batches, started.

    Args:
        number: from 0 on.
        make: makes a batch; the process has it as it is now.
        board: where it notes what it is at.
        slots: memory that it shares with the parent.
        others: the processes that there are already.

    Attributes:
        tasks: what it was sent and has not answered: by ticket, the task and the size of its message.
        is_hung: whether it was killed because it made no progress.

    Raises:
        DataError: it cannot be started.
    """

    def __init__(
        self, number: int, make: BatchMaker, board: Board, slots: SharedSlots | None, others: Sequence[Worker]
    ) -> None:
        self.number = number
        self.tasks: dict[int, tuple[Task, int]] = {}
        self.is_hung = False
        self._overdue: tuple[Any, int] = (None, 0)
        board.rest(number)
        context = get_context("fork")
        self.pipe, theirs = context.Pipe()
        foreign = [other.pipe for other in others if not other.pipe.closed] + [self.pipe]
        is_main_thread = threading.current_thread() is threading.main_thread()
        self.process = context.Process(
            target=work,
            args=(make, theirs, foreign, number, board, slots, os.getpid(), is_main_thread),
            name=f"ppcls worker {number}",
            daemon=True,
        )
        try:
            with _garbage_kept(), _signals_held():
                self.process.start()
        except OSError as error:
            raise DataError(
                f"worker process {number} of the loader cannot be started ({error.strerror}); lower loader.num_workers"
            ) from error
        finally:
            theirs.close()

    @property
    def unread_bytes(self) -> int:
        """How much of what it was sent it may not have read yet."""
        return sum(size for _, size in self.tasks.values())

    def send(self, task: Task) -> None:
        """Hand a task over."""
        message = ForkingPickler.dumps(task)
        self.tasks[task.ticket] = (task, len(message))
        with suppress(OSError):  # it is dead, which the next wait finds out
            self.pipe.send_bytes(message)

    def kill_if_hung(self, board: Board, timeout: float) -> bool:
        """Kill the process if it has been at one sample for too long, and return whether that is so.

        Args:
            board: where it notes what it is at.
            timeout: seconds that one sample may take.
        """
        sample = board.sample_of(self.number)
        if sample is None or board.seconds(self.number) <= timeout:
            self._overdue = (None, 0)
            return False
        # Looked at several times: when all processes were stopped for a while, this one must not end the others.
        self._overdue = (sample, self._overdue[1] + 1 if self._overdue[0] == sample else 1)
        if self._overdue[1] < NUM_LOOKS:
            return False
        self.is_hung = True
        self.process.kill()
        return True

    def exit_code(self) -> int | None:
        """Wait for the end of the process and return its exit code, as Python gives it; None if it does not end."""
        self.process.join(END_SECONDS)
        if self.process.exitcode is None:  # it has closed its pipe, and lives on
            self.process.kill()
            self.process.join(END_SECONDS)
        self.pipe.close()
        return self.process.exitcode


def end_all(workers: Sequence[Worker]) -> None:
    """Kill the processes; nothing of theirs is lost."""
    for worker in workers:
        worker.process.kill()
    deadline = time.monotonic() + END_SECONDS
    for worker in workers:
        worker.process.join(max(deadline - time.monotonic(), 0))
        worker.pipe.close()


@contextmanager
def _garbage_kept() -> Iterator[None]:
    """Fork within this block: the workers never collect what was alive, or garbage, in the parent.

    What a thread of the parent waits on, such as a queue of Paddle's, would be waited for without end by a worker
    that collects it (``pthread_cond_destroy``). And pages that nothing writes to stay shared.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _signals_held() -> Iterator[None]:
    """Fork within this block: no signal meets a worker that still has its parent's handlers."""
    held = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
