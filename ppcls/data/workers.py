# SPDX-License-Identifier: Apache-2.0
"""Processes that make batches: their order is that of the tasks, and one that dies is named and replaced."""

from __future__ import annotations

import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing import connection
from typing import TypeVar

import numpy as np

from ppcls.data.batch_maker import BatchMaker, Made
from ppcls.data.deaths import Deaths, cause_of
from ppcls.data.position import Position
from ppcls.data.shared_slots import SharedSlots, Slot, placed, slot_bytes
from ppcls.data.worker import Worker, end_all
from ppcls.data.worker_process import Board, Failure, PlacedBatch, Task
from ppcls.utils import dist
from ppcls.utils.errors import DataError
from ppcls.utils.logger import logger
from ppcls.utils.machine import available_memory

POLL_SECONDS = 0.5
"""How often a wait looks whether a worker makes no progress."""
MAX_UNREAD_BYTES = 2**16
"""Of tasks that a busy worker has not taken yet: what a pipe holds for certain, so that no send ever waits."""
MEMORY_SHARE = 0.5
"""Of the memory that is available, how much batches may take."""

_T = TypeVar("_T")


class WorkerPool:
    """Processes that make batches, for as many runs over the data as wanted.

    Tasks go out ahead, results come back in any order and are given in that of the tasks. There is no thread
    beside: the parent sends and receives while it asks for a batch.

    Args:
        make: makes a batch; the processes have it as it is when they are started.
        num_workers: processes.
        prefetch: batches ahead for each.
        batch_size: the largest number of samples of a batch.
        timeout: seconds that one sample may take; a worker that needs longer is ended and replaced.
        use_shared_memory: hand batches over in shared memory, otherwise through pipes.
        named: as `Deaths` takes it.
        on_deadly: as `Deaths` takes it.

    Raises:
        DataError: no process can be started.
    """

    def __init__(
        self,
        make: BatchMaker,
        num_workers: int,
        prefetch: int,
        batch_size: int,
        timeout: float,
        use_shared_memory: bool,
        named: Callable[[int, str], str],
        on_deadly: Callable[[int, str], None],
    ) -> None:
        self.prefetch = prefetch
        self.batch_size = batch_size
        self.timeout = timeout
        self._make = make
        self._deaths = Deaths(named, on_deadly)
        self._board = Board(num_workers)
        self._slots = _shared_slots() if use_shared_memory else None
        self._free: list[Slot] | None = None  # None: the size of a batch is not known yet, or there are no slots
        self._limit = num_workers * prefetch
        self._next_ticket = 0
        self._results: dict[int, tuple[Task, Made | Failure]] = {}
        self._queue: deque[int] = deque()
        self._looked = 0.0
        self._workers: list[Worker] = []
        self.close = weakref.finalize(self, _end, self._workers, self._slots, os.getpid())
        for number in range(num_workers):
            self._workers.append(self._start(number))

    @property
    def pids(self) -> list[int]:
        """The processes that are at work now."""
        return [worker.process.pid for worker in self._workers]

    @property
    def is_open(self) -> bool:
        """Whether it can be used; an error that it cannot go on after closes it."""
        return self.close.alive

    def run(
        self, tasks: Iterator[list[Position]], finish: Callable[[list[Position], Made | Failure], _T]
    ) -> Iterator[_T]:
        """Return what ``finish`` makes of each batch, in the order of the tasks.

        An earlier run ends here, whatever is left of it.

        Args:
            tasks: positions of each batch; asked for as far ahead as batches are made.
            finish: called in this process. The arrays it gets are only good until it returns.

        Raises:
            DataError: a sample has ended two workers, or too many have died; the pool is closed then.
            RuntimeError: asked for another batch after a later run has begun, or the pool was closed.
        """
        self._abandon()
        first = self._next_ticket
        try:
            while True:
                self._collect(0)
                is_last = self._dispatch(tasks)
                while not self._queue or self._queue[0] not in self._results:
                    if is_last and not self._queue:
                        return
                    self._collect(POLL_SECONDS)
                    is_last = self._dispatch(tasks)
                ticket = self._queue.popleft()
                task, result = self._results.pop(ticket)
                try:
                    finished = finish(task.positions, result)
                finally:
                    self._release(task)
                self._dispatch(tasks)
                yield finished
                if self._board.wanted[0] != first or not self.is_open:
                    raise RuntimeError("the loader was closed, or iterated over anew, which ended this iteration")
        except KeyboardInterrupt:
            self.close()  # a message may have been read by half
            raise
        finally:
            if self._board.wanted[0] == first:
                self._abandon()

    def _abandon(self) -> None:
        """Forget the tasks of the run so far; the workers leave out those that they have not begun."""
        self._board.wanted[0] = self._next_ticket
        self._queue.clear()
        for task, _ in self._results.values():
            self._release(task)
        self._results.clear()

    def _is_wanted(self, task: Task) -> bool:
        return task.ticket >= self._board.wanted[0]

    def _release(self, task: Task) -> None:
        if task.slot is not None and self._free is not None:
            self._free.append(task.slot)
        task.slot = None

    def _dispatch(self, tasks: Iterator[list[Position]]) -> bool:
        """Send out what there is room for; return whether there are no more tasks."""
        while len(self._queue) < self._limit and (self._free is None or self._free):
            worker = min(self._workers, key=lambda worker: len(worker.tasks))
            if len(worker.tasks) >= self.prefetch or worker.unread_bytes >= MAX_UNREAD_BYTES:
                return False
            positions = next(tasks, None)
            if positions is None:
                return True
            task = Task(
                self._next_ticket, positions, self._free.pop() if self._free else None, dict(self._deaths.deadly)
            )
            self._next_ticket += 1
            self._queue.append(task.ticket)
            worker.send(task)
        return False

    def _collect(self, seconds: float) -> None:
        """Wait until something arrives, or a worker dies, or so much time has passed."""
        things = {thing: worker for worker in self._workers for thing in (worker.pipe, worker.process.sentinel)}
        ready = connection.wait(list(things), seconds)
        for worker in {things[thing].number: things[thing] for thing in ready}.values():
            self._receive(worker, is_dead=worker.process.sentinel in ready)
        if time.monotonic() - self._looked > POLL_SECONDS:
            self._looked = time.monotonic()
            for worker in list(self._workers):
                if worker.kill_if_hung(self._board, self.timeout):
                    self._receive(worker, is_dead=True)

    def _receive(self, worker: Worker, is_dead: bool) -> None:
        try:
            while worker.pipe.poll():
                self._take(worker, *worker.pipe.recv())
        except (EOFError, OSError):
            is_dead = True
        if is_dead:
            self._replace(worker)

    def _take(self, worker: Worker, ticket: int, result: Made | Failure | PlacedBatch | None) -> None:
        task, _ = worker.tasks.pop(ticket)
        if not self._is_wanted(task) or result is None:
            self._release(task)
            return
        if isinstance(result, PlacedBatch):
            assert self._slots is not None
            memory = self._slots.memory
            result = Made(placed(memory, result.images), placed(memory, result.labels), result.bad)
        else:
            self._release(task)
            if isinstance(result, Made) and result.images is not None and self._slots and self._free is None:
                self._open_slots(self._slots, result)
        self._results[ticket] = (task, result)

    def _open_slots(self, slots: SharedSlots, made: Made) -> None:
        """Now that the size of a batch is known, lay out the slots that the next tasks are given."""
        arrays = [array for array in (made.images, made.labels) if array is not None]
        batch_size = max(self.batch_size, len(arrays[0]))
        size = slot_bytes([np.broadcast_to(array[:1], (batch_size, *array.shape[1:])) for array in arrays])
        available = available_memory()
        num_slots = self._limit
        if available is not None:
            num_slots = min(num_slots, int(available * MEMORY_SHARE) // dist.processes_here() // size)
        advice = "lower loader.num_workers, loader.prefetch_factor or sampler.batch_size"
        wanted = f"{self._limit} batches ahead take {self._limit * size / 2**20:.0f} MB of shared memory"
        try:
            if num_slots < 2:
                raise OSError(f"{(available or 0) / 2**20:.0f} MB are available")
            self._free = slots.open(size, num_slots)
        except OSError as error:
            logger.warning(
                "%s, but %s: they go through pipes, fewer ahead; %s", wanted, error.strerror or error, advice
            )
            self._slots = None
            self._limit = len(self._workers)
            return
        if num_slots < self._limit:
            logger.warning("%s; there is room for %d, so fewer are made ahead; %s", wanted, num_slots, advice)

    def _replace(self, worker: Worker) -> None:
        """Put a new process in the place of a dead one, and have it make what is outstanding."""
        exit_code = worker.exit_code()
        try:
            hung_seconds = self.timeout if worker.is_hung else None
            sample = self._board.sample_of(worker.number)
            cause = cause_of(exit_code, hung_seconds)
            self._deaths.note(worker.process.pid, cause, None if sample is None else sample[1])
            new = self._start(worker.number)
        except DataError:
            self.close()
            raise
        self._workers[worker.number] = new
        tasks = [task for task, _ in worker.tasks.values()]
        for task in tasks:
            if self._is_wanted(task):
                task.deadly = dict(self._deaths.deadly)
                new.send(task)
            else:
                self._release(task)

    def _start(self, number: int) -> Worker:
        return Worker(number, self._make, self._board, self._slots, self._workers)


def _end(workers: list[Worker], slots: SharedSlots | None, owner: int) -> None:
    """End what a pool has. Also called when the pool is forgotten, and at exit."""
    if os.getpid() != owner:
        return  # in a process that was forked later, and has nothing to say
    end_all(workers)
    workers.clear()
    if slots is not None:
        slots.close()


def _shared_slots() -> SharedSlots | None:
    try:
        return SharedSlots()
    except OSError as error:
        logger.warning("no shared memory (%s): batches go through pipes", error.strerror or error)
        return None
