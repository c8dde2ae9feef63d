# SPDX-License-Identifier: Apache-2.0
"""Which process it is that the others wait for."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MAX_NAMED = 4
_STATES = {"T": "stopped by SIGSTOP or Ctrl-Z", "D": "waiting for a disk", "Z": "ended", "R": "computing"}


@dataclass(frozen=True)
class Process:
    """A process of the run.

    Attributes:
        host: the machine's name.
        pid: its number there.
        space: tells apart machines of one name, and containers, whose numbers mean different processes.
    """

    host: str
    pid: int
    space: str

    @classmethod
    def own(cls) -> Process:
        """This one."""
        try:
            space = os.readlink("/proc/self/ns/pid")
        except OSError:
            space = ""
        return cls(socket.gethostname(), os.getpid(), space)

    def is_near(self, other: Process) -> bool:
        """Whether both are on one machine, and can signal each other."""
        return (self.host, self.space) == (other.host, other.space)

    @property
    def state(self) -> str:
        """The letter that Linux gives its state, such as T for stopped; empty when there is none. Needs to be near."""
        try:
            text = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return text.rpartition(")")[2].split()[0]


@dataclass
class Report:
    """What a process says of itself; as it is made here, nothing yet.

    Attributes:
        still: seconds without progress.
        limit: seconds that it may take; 0 for without end, or not known yet.
        place: epoch and batch.
        at: the line of code that it is at.
        waits: whether that line waits for other processes.
        silent: seconds since it has last said something.
    """

    still: float = 0.0
    limit: float = 0.0
    place: str = ""
    at: str = ""
    waits: bool = False
    silent: float = 0.0

    @property
    def last(self) -> str:
        """Where it was, as far as it is known."""
        return ", ".join(filter(None, (self.place, self.at)))


def stands_still(reports: Mapping[int, Report], patience: float) -> bool:
    """Whether nothing moves: as long as one process makes progress, those that wait for it are no stall.

    Args:
        reports: the last of each process, by rank.
        patience: seconds of silence after which one counts as deaf, and what it said of its limit as outdated.
    """
    limit = max((report.limit for report in reports.values() if report.silent <= patience), default=0.0)
    return limit > 0 and min(report.still + report.silent for report in reports.values()) > limit


def culprits(
    reports: Mapping[int, Report], processes: Mapping[int, Process], own: Process, patience: float, seconds: float
) -> str:
    """Say which process the others wait for.

    Args:
        reports: the last of each process, by rank.
        processes: where they are.
        own: this one.
        patience: seconds of silence after which one counts as deaf.
        seconds: without any progress.
    """
    tail = f"none of {len(processes)} processes has made progress for {seconds:.0f} s"
    deaf = [rank for rank, report in reports.items() if report.silent > patience]
    busy = [rank for rank, report in reports.items() if not report.waits and rank not in deaf]
    if deaf:
        told = [
            f"process {rank} ({_whereabouts(processes[rank], own)}) does not answer"
            + (f", last heard from at {reports[rank].last}" if reports[rank].last else "")
            for rank in sorted(deaf)
        ]
        # All go through the batches together: where the others are it must have been.
        others = next((report.place for rank, report in reports.items() if report.place and rank not in deaf), "")
        tail = f"{f'the others are at {others}; ' if others else ''}{tail}"
    elif busy and len(busy) < len(reports):
        told = [f"process {rank} stands still at {reports[rank].last}" for rank in sorted(busy)]
    else:
        told = [f"process {rank} waits at {report.last}" for rank, report in sorted(reports.items())]
    if len(told) > MAX_NAMED:
        told[MAX_NAMED:] = [f"and {len(told) - MAX_NAMED} more"]
    return "; ".join([*told, tail])


def _whereabouts(process: Process, own: Process) -> str:
    state = _STATES.get(process.state, "") if process.is_near(own) else f"on {process.host}"
    return f"pid {process.pid}{', ' if state else ''}{state}"
