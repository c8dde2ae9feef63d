# SPDX-License-Identifier: Apache-2.0
"""What runs in a worker process, and what it and its parent say to each other."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from multiprocessing import connection

import cv2
import numpy as np
import paddle

from ppcls.data.batch_maker import BadBatch, BatchMaker, Made
from ppcls.data.deaths import NO_MEMORY
from ppcls.data.position import Position
from ppcls.data.shared_slots import Placed, Room, SharedSlots, Slot
from ppcls.utils.memory import keep_freed_memory
from ppcls.utils.stderr import allow_quiet

_IDLE = -1
_PR_SET_PDEATHSIG = 1
"""Its number in Linux's ``prctl.h``."""


@dataclass
class Failure:
    """An exception on its way from a worker."""

    error: Exception
    trace: str
    bad: list[tuple[int, str]] = field(default_factory=list)

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Pack an exception; one that another process could not rebuild becomes a RuntimeError of the same text."""
        bad = error.bad if isinstance(error, BadBatch) else []
        error = error.error if isinstance(error, BadBatch) else error
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        return cls(error if _can_travel(error) else RuntimeError(f"{type(error).__name__}: {error}"), trace, bad)


@dataclass
class Task:
    """A batch to be made; ``slot`` is where in shared memory."""

    ticket: int
    positions: list[Position]
    slot: Slot | None = None
    deadly: dict[int, str] = field(default_factory=dict)


@dataclass
class PlacedBatch:
    """A batch that lies in shared memory."""

    images: Placed
    labels: Placed
    bad: list[tuple[int, str]]


class Board:
    """What the processes know of each other at any time: who makes which sample since when."""

    def __init__(self, num_workers: int) -> None:
        cells = np.frombuffer(mmap.mmap(-1, 8 * (1 + 3 * num_workers)), np.int64)
        self.wanted = cells[:1]  # the first ticket that is not given up
        self.rows = cells[1:].reshape(num_workers, 3)  # ticket, index of the sample, when it was begun
        self.rows[:, 1] = _IDLE

    def begin(self, number: int, ticket: int, index: int) -> None:
        """Note that a worker begins with a sample."""
        self.rows[number, 1] = _IDLE
        self.rows[number, 2] = time.monotonic_ns()
        self.rows[number, 0] = ticket
        self.rows[number, 1] = index

    def rest(self, number: int) -> None:
        """Note that a worker is at no sample."""
        self.rows[number, 1] = _IDLE

    def sample_of(self, number: int) -> tuple[int, int] | None:
        """Return the ticket and index that a worker is at; None for one that is at none."""
        ticket, index, _ = self.rows[number].tolist()
        return None if index == _IDLE else (ticket, index)

    def seconds(self, number: int) -> float:
        """Return how long a worker has been at its sample; 0 for one that is at none."""
        _, index, started = self.rows[number].tolist()
        return 0.0 if index == _IDLE else (time.monotonic_ns() - started) / 1e9


def work(
    make: BatchMaker,
    pipe: connection.Connection,
    foreign: list[connection.Connection],
    number: int,
    board: Board,
    slots: SharedSlots | None,
    parent: int,
    is_main_thread: bool,
) -> None:
    """Make batches until the parent has no more to say, or ends.

    Args:
        make: makes a batch.
        pipe: tasks come, and results go.
        foreign: pipes of the parent, to be closed.
        number: of this worker, from 0 on.
        board: where it notes what it is at.
        slots: memory that it shares with the parent.
        parent: the parent's process id.
        is_main_thread: whether the main thread of the parent started this process.
    """
    # What asks a run to end or to save reaches every process of a terminal or a job; the parent decides.
    paddle.disable_signal_handler()  # it would write a page about each signal; the parent has a line
    signal.set_wakeup_fd(-1)
    for signal_number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signal_number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # blocked: `_end_with` looks who sent it
    signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGTERM})
    cv2.setNumThreads(0)  # each worker is one of several: OpenCV's own threads would compete with the others'
    keep_freed_memory()
    allow_quiet()
    for other in foreign:
        other.close()
    _end_with(parent, is_main_thread)
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        is_wanted = task.ticket >= board.wanted[0]
        result = _result(make, task, number, board, slots) if is_wanted else None
        board.rest(number)
        try:
            pipe.send((task.ticket, result))
        except OSError:
            return


def _end_with(parent: int, is_main_thread: bool) -> None:
    """Let this process end when the parent has ended, whatever it is doing then."""
    if is_main_thread and sys.platform == "linux":
        # At once, also in a library that does not come back to Python. It counts the end of the thread that forked.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            # At its exit Python sends it to the processes that it has started; from others it is not for this one.
            terminated = signal.sigtimedwait({signal.SIGTERM}, 1)
            if terminated is not None and terminated.si_pid == parent:
                break
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _result(
    make: BatchMaker, task: Task, number: int, board: Board, slots: SharedSlots | None
) -> Made | Failure | PlacedBatch | None:
    try:
        room = Room(slots.memory, task.slot) if slots is not None and task.slot is not None else None

        def at(index: int) -> None:
            if task.ticket < board.wanted[0]:
                raise _Abandoned
            board.begin(number, task.ticket, index)

        made = make(task.positions, room.empty if room else np.empty, at, task.deadly)
        if room is not None and made.images is not None and made.labels is not None:
            images, labels = room.place(made.images), room.place(made.labels)
            if images is not None and labels is not None:
                return PlacedBatch(images, labels, made.bad)
        return made
    except _Abandoned:
        return None
    except Exception as error:  # noqa: BLE001 (it is raised in the parent)
        if _is_out_of_memory(error):
            raise SystemExit(NO_MEMORY) from error
        return Failure.of(error)


class _Abandoned(Exception):
    """The batch is not wanted any more."""


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or (isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem)


def _can_travel(error: Exception) -> bool:
    """Whether another process can rebuild the exception: of an importable class, and made of plain values.

    One that cannot would be lost without a word, and the batch waited for without end.
    """
    module = sys.modules.get(type(error).__module__)
    plain = (str, bytes, int, float, list, type(None))
    values = [*error.args, *vars(error).values()]
    return getattr(module, type(error).__qualname__, None) is type(error) and all(isinstance(v, plain) for v in values)
