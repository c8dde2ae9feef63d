# SPDX-License-Identifier: Apache-2.0
"""The processes of a run watch each other: when one fails all end with its message; when none moves they say where.

A collective operation waits for a process that has died as long as for one that is slow; with NCCL, without end. So
each process has a thread that talks to the first one, and that ends its own where the main thread cannot.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ppcls.engine.peer_link import Link, Message
from ppcls.engine.stacks import dump_later, dump_never, main_thread_place, write_stacks
from ppcls.engine.stall import Process, Report, culprits, stands_still
from ppcls.utils import dist, pulse
from ppcls.utils.cli import exit_code_of, leave
from ppcls.utils.errors import PeerError, PpclsError
from ppcls.utils.logger import log_traceback, logger
from ppcls.utils.supervisor import SEE_ITS_MESSAGE, SUPERVISED
from ppcls.utils.terminate import on_uncaught

if TYPE_CHECKING:
    from ppcls.engine.trainer import TrainState

FOLDER = "stalled"
"""In the output directory: the stacks of a run that stood still."""
FIRST_BATCH = 10
"""So many times as long as any later batch the first one may take, with all that comes before it."""
GRACE_SECONDS = 2.0
"""How long a main thread has to end by itself once another process has failed; and stacks, to be written."""
LAST_WORDS_SECONDS = 4.0
"""How long a process that its thread ends has for what is being written."""
POLL_SECONDS = 0.1
FAREWELL_SECONDS = 0.2
"""How long the end of a process waits for the others to hear of it."""
MAX_TRACE_LINES = 40
MAX_TEXT = 8000
_LOST = "was lost: it was killed or has crashed, or its machine is gone; see what it printed last"
_COMMUNICATION = ("gloo", "nccl", "bkcl", "xccl", "tcp_store", "tcp_utils")


class Peers:
    """Watches over the processes of a run; a context manager that all enter together.

    Args:
        stall_seconds: when no process has made progress for so long, all write their stacks and end; a single
            process does not end, as it may be waiting for a person. None: nothing of it.
        directory: where the folder for the stacks is made.
        last_words: told the error that ends this process when its main thread cannot be told.
    """

    def __init__(
        self,
        stall_seconds: float | None,
        directory: Path,
        last_words: Callable[[BaseException], None] | None = None,
    ) -> None:
        self.stall_seconds = stall_seconds
        self.folder = directory / FOLDER
        self.last_words = last_words
        self.interval = min(max((stall_seconds or 100.0) / 10, 0.5), 10.0)
        self.patience = 3 * self.interval + 1
        self._state: TrainState | None = None
        self._link: Link | None = None
        self._own = Process.own()
        self._processes = {dist.rank(): self._own}
        self._reports: dict[int, Report] = {}
        self._ended: set[int] = set()
        self._beats, self._batches = 0, 0
        self._still = 0.0
        self._is_warned = False
        self._farewell: Message = {"code": 1, "text": "its watch has failed"}
        self._lost: PeerError | None = None
        self._is_known = threading.Event()  # why another process has ended
        self._is_leaving = threading.Event()  # the main thread ends by itself
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Peers:
        """Begin to watch."""
        self._beats, self._batches = pulse.beats(), pulse.batches()
        if dist.world_size() > 1:
            told = dist.gathered(asdict(self._own))
            self._processes = {rank: Process(**process) for rank, process in enumerate(told)}
            try:
                self._link = Link()
            except ConnectionError as error:
                logger.warning("the processes cannot watch each other (%s): stalls go unnoticed", error)
                return self
            others = range(1, dist.world_size()) if dist.is_main() else [0]
            self._reports = {rank: Report() for rank in others}
            on_uncaught("gloo", self._end_lost)
        elif self.stall_seconds is None:
            return self
        self._thread = threading.Thread(target=self._watch, name="ppcls peers", daemon=True)
        self._thread.start()
        return self

    def follow(self, state: TrainState) -> None:
        """Let messages say where this training is."""
        self._state = state

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell the others how this process ends.

        Raises:
            PeerError: in place of what Paddle raises when the end of another process breaks a connection.
        """
        is_broken = error is not None and dist.world_size() > 1 and _is_broken_connection(error)
        if self._thread is not None:
            if is_broken:
                self._is_known.wait(GRACE_SECONDS)
            self._farewell = _farewell(error)
            self._is_leaving.set()
            self._stop.set()
            if self._link is not None:
                self._link.wake()
            self._thread.join(2 * GRACE_SECONDS)
            on_uncaught("gloo", None)
        if is_broken:
            raise self._lost or PeerError(
                f"process {dist.rank()} has lost its connection to another one: {' '.join(str(error).split())[-200:]}"
            ) from error

    def _end_lost(self) -> None:
        """End in the middle of C++, from where there is no way back to Python."""
        self._is_known.wait(GRACE_SECONDS)
        self._end(self._lost or PeerError(f"process {dist.rank()} has lost its connection to another one"))

    def _end(self, error: PeerError) -> None:
        """End this process, whatever its main thread does."""
        # What cannot be written, as the disk hangs, must not keep the process.
        words = threading.Thread(target=self._say_last_words, args=(error,), daemon=True)
        words.start()
        words.join(LAST_WORDS_SECONDS)
        leave(error.exit_code)

    def _say_last_words(self, error: PeerError) -> None:
        sys.stderr.write(f"{error}\n")  # at once: the main thread may be logging
        sys.stderr.flush()
        log_traceback(error)
        if self.last_words is not None:
            self.last_words(error)

    # What follows runs in the thread.

    def _watch(self) -> None:
        before = time.monotonic()
        try:
            while not self._stop.is_set():
                self._hear(self.interval)
                now = time.monotonic()
                if now - before >= self.interval / 2:
                    # When everything was stopped for a while, such as by Ctrl-Z, that was no stall.
                    self._tick(min(now - before, 2 * self.interval))
                    before = now
        finally:
            dump_never()
            if self._link is not None:
                self._link.send(self._farewell)
                self._link.close(FAREWELL_SECONDS)

    def _hear(self, seconds: float) -> None:
        if self._link is None:
            self._stop.wait(seconds)
            return
        for rank, message in self._link.messages(seconds):
            if message is None:
                self._hear_end(rank, {"code": 0} if rank in self._ended else {"code": 1, "text": _LOST})
            elif "code" in message:
                self._hear_end(rank, message)
            elif "lost" in message:
                self._lose(message["lost"], message["text"], message.get("trace"))
            elif "stalled" in message:
                self._end_stalled(message["stalled"])
            else:
                self._reports[rank] = Report(**message)

    def _hear_end(self, rank: int, message: Message) -> None:
        self._ended.add(rank)
        self._reports.pop(rank, None)
        # One that was asked to end is no failure, and one that ends for another's sake is not the cause.
        if message["code"] in (0, PeerError.exit_code) or message["code"] > 128:
            return
        if dist.is_main() and self._link is not None:
            self._link.send(_loss(rank, message))
        self._lose(rank, message["text"], message.get("trace"))

    def _lose(self, rank: int, text: str, trace: str | None) -> None:
        if self._lost is None:
            self._lost = PeerError(self._loss_text(rank, text, trace))
            self._is_known.set()
            if not self._is_leaving_soon():
                self._end(self._lost)

    def _is_leaving_soon(self) -> bool:
        """Whether the main thread ends by itself; less time is left to one that waits for others all along."""
        num_looks = int(GRACE_SECONDS / POLL_SECONDS)
        num_waits = 0
        for _ in range(num_looks):
            if self._is_leaving.wait(POLL_SECONDS):
                return True
            num_waits = num_waits + 1 if main_thread_place()[1] else 0
            if num_waits > num_looks / 3:
                break
        return self._is_leaving.is_set()

    def _loss_text(self, rank: int, text: str, trace: str | None) -> str:
        # One process on each machine says it all, or its supervisor does.
        is_shown = SUPERVISED in os.environ and self._processes[rank].is_near(self._own)
        if is_shown or os.environ.get("PADDLE_LOCAL_RANK", "0") != "0":
            return f"process {rank} ended; {SEE_ITS_MESSAGE}"
        return f"process {rank}: {text}" + (f"\n{trace}" if trace else "")

    def _tick(self, seconds: float) -> None:
        beats, self._beats = self._beats, pulse.beats()
        self._still = self._still + seconds if beats == self._beats else 0.0
        limit = self._limit()
        if limit and self._link is None:
            dump_later(limit + 1)  # for a main thread that lets no other one run
        own = self._report(limit)
        for report in self._reports.values():
            report.silent += seconds
        if self._link is None:
            self._warn_of_stall(own)
        else:
            self._link.send(asdict(own), only_ready=True)
            self._look_for_stall(own)

    def _limit(self) -> float:
        return (self.stall_seconds or 0.0) * (FIRST_BATCH if pulse.batches() == self._batches else 1)

    def _report(self, limit: float) -> Report:
        at, waits = main_thread_place()
        state = self._state
        return Report(self._still, limit, f"epoch {state.epoch}, batch {state.batch}" if state else "", at, waits)

    def _look_for_stall(self, own: Report) -> None:
        reports = {dist.rank(): own, **self._reports}
        # The first process knows of all, and decides; when it is deaf itself, each of the others does.
        is_deaf = 0 in reports and reports[0].silent > self.patience
        if stands_still(reports, self.patience) and (dist.is_main() or is_deaf):
            text = culprits(reports, self._processes, self._own, self.patience, own.still)
            self._end_stalled(f"{text}; the stacks of all are in {self.folder}", decides=True)

    def _end_stalled(self, text: str, decides: bool = False) -> None:
        """Write the stacks, and end; who decides gives the others time to do so, and ends those that do not.

        A supervisor ends them itself, and would otherwise take them for the cause.
        """
        assert self._link is not None
        self._link.send({"stalled": text})
        writing = self._write_stacks()
        for process in self._processes.values():
            # One that somebody has stopped hears of it, and writes its own, once it may go on.
            if process is not self._own and process.is_near(self._own) and process.state == "T":
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(process.pid, signal.SIGCONT)
        writing.join(GRACE_SECONDS)
        deadline = time.monotonic() + GRACE_SECONDS
        while decides and self._link.lines and (left := deadline - time.monotonic()) > 0:
            for _ in self._link.messages(left):
                continue  # a line that breaks is a process that has ended
        if decides and SUPERVISED not in os.environ:
            # Their lines are still there, so the numbers are still theirs.
            for process in [self._processes[rank] for rank in self._link.lines]:
                if process.is_near(self._own):
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(process.pid, signal.SIGABRT)  # which shows its stack, without Python's help
        self._end(PeerError(text))

    def _warn_of_stall(self, own: Report) -> None:
        is_stall = stands_still({0: own}, self.patience)
        if is_stall and not self._is_warned:
            # Logged first: writing may wait for the very disk that the training waits for.
            logger.warning(
                "no progress for %.0f s; it is at %s; the stacks are in %s", own.still, own.last, self.folder
            )
            self._write_stacks()
        self._is_warned = is_stall

    def _write_stacks(self) -> threading.Thread:
        own = self._report(0)
        writing = threading.Thread(target=write_stacks, args=(self.folder, own.last), daemon=True)
        writing.start()
        return writing


def _farewell(error: BaseException | None) -> Message:
    """What the others are told of the end of this process."""
    if error is None:
        return {"code": 0}
    code = exit_code_of(error)
    if getattr(error, "is_shared", False):
        return {"code": PeerError.exit_code}  # `dist.together` has told them
    if isinstance(error, PpclsError) or code != 1:
        return {"code": code, "text": str(error)[:MAX_TEXT] or type(error).__name__}
    lines = "".join(traceback.format_exception(type(error), error, error.__traceback__)).splitlines()
    return {
        "code": code,
        "text": f"{type(error).__name__}: {error}"[:MAX_TEXT],
        "trace": "\n".join(lines[-MAX_TRACE_LINES:])[-2 * MAX_TEXT :],
    }


def _loss(rank: int, message: Message) -> Message:
    return {"lost": rank, **{name: message[name] for name in ("text", "trace") if name in message}}


def _is_broken_connection(error: BaseException) -> bool:
    # Paddle 3.3.1: RuntimeError from gloo, and OSError for what it calls external, such as NCCL.
    if isinstance(error, PpclsError) or not isinstance(error, (RuntimeError, OSError, SystemError)):
        return False
    return any(word in str(error).lower() for word in _COMMUNICATION)
