# SPDX-License-Identifier: Apache-2.0
"""Starts the processes of a run, ends them together, says which one failed first, and starts them again."""

from __future__ import annotations

import math
import os
import selectors
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from ppcls.utils.errors import ConfigError, DataError, NumericsError, ParityError, PeerError, Stopped
from ppcls.utils.rank_process import RankProcess
from ppcls.utils.rendezvous import Outcome, Rendezvous, Start, Verdict

POLL_SECONDS = 0.1
ENDING = ((6.0, signal.SIGTERM), (9.0, signal.SIGABRT), (10.0, signal.SIGKILL))
"""Seconds after the first failure, and what those that still run are sent: ours end before, having written what they
were writing; SIGABRT shows the stacks of one that hangs."""
MAX_WAIT_SECONDS = 60.0
"""Between two starts."""
FORWARDED = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))
SUPERVISED = "PPCLS_SUPERVISED"
"""Tells the processes that their supervisor says how each of them has ended."""
SEE_ITS_MESSAGE = "see its message"
"""The end of what a process says that knows only which other one has failed."""
FINAL = {
    ConfigError.exit_code: "the command or configuration cannot be obeyed",
    DataError.exit_code: "the data cannot be used",
    NumericsError.exit_code: "the same batches give the same numbers",
    ParityError.exit_code: "the same weights give the same answers",
}
"""Exit codes that another start would end with again, and why."""


@dataclass(frozen=True)
class Failure:
    """What ended a start.

    Attributes:
        when: in seconds since 1970.
        seconds: how long it had run.
        who: which process.
        code: its exit code, 128 and the number for a signal.
        cause: in a line.
    """

    when: float
    seconds: float
    who: str
    code: int
    cause: str

    def __str__(self) -> str:
        return f"[{_clock(self.when)}] {self.who}, after {self.seconds:.0f} s: {self.cause} (exit code {self.code})"


class Supervisor:
    """Keeps a run going on this machine.

    A failure of one process is the end of all: they are given some seconds to end by themselves, are asked to, and are
    killed. Signals are passed on, and then waited for.

    Args:
        command: what each process runs.
        shares: what each process of this machine has in its environment beside what all have: its device.
        log_dir: each process's output is appended to ``rank_N.log`` there.
        rendezvous: with the supervisors of other machines.
        max_restarts: how often all processes are started again after a failure.
        first_wait: seconds before the second start; each further wait is twice as long.
        grace: seconds that a signal may take until processes are killed: they save.
    """

    def __init__(
        self,
        command: Sequence[str],
        shares: Sequence[Mapping[str, str]],
        log_dir: Path,
        rendezvous: Rendezvous,
        max_restarts: int = 0,
        first_wait: float = 3.0,
        grace: float = 600.0,
    ) -> None:
        self.command = list(command)
        self.shares = shares
        self.log_dir = log_dir
        self.rendezvous = rendezvous
        self.max_restarts = max_restarts
        self.first_wait = first_wait
        self.grace = grace
        self.history: list[Failure] = []
        self._group: list[RankProcess] = []
        self._stopped_by: int | None = None
        self._kill_at: float | None = None
        rendezvous.stopped_by = lambda: self._stopped_by
        rendezvous.say = _say

    def run(self) -> int:
        """Run to the end, or to the last failure; gives the exit code: that of the first cause, 128 + N for signals.

        Raises:
            OSError: the logs cannot be written.
            PeerError: another machine does not come.
            ConfigError: machines of two jobs meet.
        """
        self.log_dir.mkdir(parents=True, exist_ok=True)
        former = {number: signal.signal(number, self._on_signal) for number in FORWARDED if not _is_ignored(number)}
        outcome = Outcome()
        try:
            while True:
                answer = self.rendezvous.agree(outcome, self._decide)
                if isinstance(answer, Verdict):
                    if answer.text and self.rendezvous.node:
                        _say(answer.text)
                    return answer.code
                outcome = self._run_once(answer)
                # These end all machines alike, so nobody waits for an answer.
                if self._stopped_by is not None or outcome.code == 0 or (outcome.code or 0) in _STOPS:
                    return outcome.code or 0
        except Stopped as error:
            return error.exit_code
        finally:
            self.rendezvous.close()
            for process in self._group:
                process.kill()
            for number, handler in former.items():
                signal.signal(number, handler)

    def _decide(self, outcomes: dict[int, Outcome]) -> Verdict | None:
        """Whether there is another start, on the first machine; waits before it."""
        failed = [outcome for outcome in outcomes.values() if outcome.code]
        if not failed:
            return None
        # A machine whose processes ended for another's sake has code 6.
        first = next((outcome for outcome in failed if outcome.code != PeerError.exit_code), failed[0])
        assert first.code is not None
        if len(outcomes) > 1 and first is not outcomes[0]:
            now = time.time()
            self.history[-1:] = [Failure(now, self._seconds, first.text, first.code, "on another machine")]
        if first.code in FINAL:
            return self._verdict(first.code, f"not started again, as {FINAL[first.code]}")
        if len(self.history) > self.max_restarts:
            return self._verdict(first.code, f"not started again after {len(self.history)} failures")
        seconds = min(self.first_wait * 2 ** (len(self.history) - 1), MAX_WAIT_SECONDS)
        _say(f"starting again in {seconds:g} s, {len(self.history)} of {self.max_restarts}")
        self._sleep(seconds)
        return None

    def _verdict(self, code: int, text: str) -> Verdict | None:
        told = "\n".join([text, *(f"  {failure}" for failure in self.history)])
        if self.max_restarts:
            _say(told)
        return Verdict(code, told)

    def _sleep(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self._stopped_by is not None:
                raise Stopped(self._stopped_by)
            time.sleep(min(left, POLL_SECONDS))

    def _run_once(self, start: Start) -> Outcome:
        began = time.monotonic()
        self._group = []
        for local in range(len(self.shares)):
            self._group.append(self._started(start, local))
        if self._stopped_by is not None:
            for process in self._group:
                if process.last_sent != self._stopped_by:  # the signal came before it was there
                    process.send(self._stopped_by)
        first = self._watch()
        self._seconds = time.monotonic() - began
        if self._stopped_by is not None:
            return Outcome(128 + self._stopped_by if first is None else first.exit_code)
        if first is None:
            return Outcome(0)
        who = f"process {first.rank}"
        self.history.append(Failure(time.time(), self._seconds, who, first.exit_code, first.cause()))
        self._tell(first)
        return Outcome(first.exit_code, f"{who} ({first.cause()})")

    def _started(self, start: Start, local: int) -> RankProcess:
        rank = start.first + local
        environment = {
            **os.environ,
            "PADDLE_MASTER": start.store,
            "PADDLE_GLOBAL_SIZE": str(len(start.ends)),
            "PADDLE_LOCAL_SIZE": str(len(self.shares)),
            "PADDLE_GLOBAL_RANK": str(rank),
            "PADDLE_LOCAL_RANK": str(local),
            "PADDLE_NNODES": str(self.rendezvous.num_nodes),
            "PADDLE_CURRENT_ENDPOINT": start.ends[rank],
            "PADDLE_TRAINER_ID": str(rank),
            "PADDLE_TRAINERS_NUM": str(len(start.ends)),
            "PADDLE_RANK_IN_NODE": str(local),
            "PADDLE_TRAINER_ENDPOINTS": ",".join(start.ends),
            SUPERVISED: "1",
            **self.shares[local],
        }
        out = (sys.stdout.buffer, sys.stderr.buffer) if local == 0 else None
        return RankProcess(rank, self.command, environment, self.log_dir / f"rank_{rank}.log", out)

    def _watch(self) -> RankProcess | None:
        """Wait until all have ended; gives the one that failed first, of those that did not end for another's sake."""
        running, failed = list(self._group), []
        failed_at: float | None = None
        steps = list(ENDING)
        while running:
            self._hear(running)
            for process in [process for process in running if process.poll() is not None]:
                running.remove(process)
                process.kill()  # what it has left behind
                if process.exit_code and not process.is_ended_by_us:
                    failed.append(process)
                    failed_at = failed_at or time.monotonic()
            now = time.monotonic()
            if failed_at is not None and steps and now - failed_at > steps[0][0] and self._stopped_by is None:
                _, number = steps.pop(0)
                for process in running:
                    process.is_ended_by_us = True
                    process.send(number)
            if self._kill_at is not None and now > self._kill_at:
                for process in running:
                    process.kill()
        own = [process for process in failed if process.exit_code != PeerError.exit_code]
        witnesses = [process for process in failed if not process.cause().endswith(SEE_ITS_MESSAGE)]
        return next(iter(own or witnesses or failed), None)

    def _hear(self, running: Sequence[RankProcess]) -> None:
        with selectors.DefaultSelector() as selector:
            for process in running:
                for stream in process.streams:
                    selector.register(stream, selectors.EVENT_READ, process)
            if not selector.get_map():
                time.sleep(POLL_SECONDS)
            for process in {key.data for key, _ in selector.select(POLL_SECONDS)}:
                process.hear()

    def _tell(self, first: RankProcess) -> None:
        """Show the first cause, unless it has been shown as it was printed."""
        _say(f"process {first.rank} failed: {first.cause()} (exit code {first.exit_code}); {first.log}")
        for process in self._group:
            # A script that calls exit() leaves the others alone with what they cannot explain.
            if not process.exit_code and (process.ended or math.inf) < (first.ended or 0.0):
                _say(f"process {process.rank} had ended before, with exit code 0; {process.log}")
        message = first.message()
        if first is not self._group[0] and message[1:]:
            print("\n".join(message), file=sys.stderr, flush=True)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        for process in self._group:
            process.send(number)
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stopped_by = self._stopped_by or number
            self._kill_at = self._kill_at or time.monotonic() + self.grace


_STOPS = (128 + signal.SIGINT, 128 + signal.SIGTERM)


def _is_ignored(number: int) -> bool:
    return signal.getsignal(number) == signal.SIG_IGN


def _say(text: str) -> None:
    print(f"[{_clock(time.time())}] launch: {text}", file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    return time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(seconds))
