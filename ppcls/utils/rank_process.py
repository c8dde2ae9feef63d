# SPDX-License-Identifier: Apache-2.0
"""One process of a run, seen from its supervisor: started, heard, ended, and what it ended with."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, BinaryIO

KEPT_LINES = 200
SHOWN_LINES = 40
_PR_SET_PDEATHSIG = 1
"""Its number in Linux's ``prctl.h``."""
_NOISE = re.compile(r"[\W_]*$|FLAGS\(name=|[IW]\d{4} [\d:.]+ ")
"""What Paddle 3.3.1 prints of its own accord, and empty lines and rulers."""
_HEADS = ("Traceback (most recent call last):", "Fatal Python error: ")
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


class RankProcess:
    """A process in a session of its own, so that Ctrl-C reaches its supervisor alone.

    Args:
        rank: its number in the run.
        command: what it runs.
        environment: the whole of it.
        log: what it prints is appended there.
        out: what it prints is copied there, too: stdout and stderr. None for nowhere.
    """

    def __init__(
        self,
        rank: int,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        out: tuple[BinaryIO, BinaryIO] | None,
    ) -> None:
        self.rank = rank
        self.started = time.monotonic()
        self.ended: float | None = None
        self.is_ended_by_us = False
        self.last_sent: int | None = None
        self.log = log
        self._log = open(log, "ab", buffering=0)  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_end_with_parent,  # this process has no threads
        )
        assert self._process.stdout is not None and self._process.stderr is not None
        self._copies: dict[IO[bytes], BinaryIO | None] = {
            self._process.stdout: out[0] if out else None,
            self._process.stderr: out[1] if out else None,
        }
        for stream in self._copies:
            os.set_blocking(stream.fileno(), False)
        self._line = b""
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)

    @property
    def pid(self) -> int:
        """Its number on this machine."""
        return self._process.pid

    @property
    def streams(self) -> list[IO[bytes]]:
        """What can still be heard."""
        return list(self._copies)

    def hear(self) -> None:
        """Take over what it has printed."""
        for stream in list(self._copies):
            try:
                while (block := os.read(stream.fileno(), 2**16)) and self._take(stream, block):
                    continue
            except BlockingIOError:
                continue
            # Nobody can print there any more.
            del self._copies[stream]
            stream.close()

    def _take(self, stream: IO[bytes], block: bytes) -> bool:
        for target in (self._log, self._copies[stream]):
            if target is None:
                continue
            try:
                target.write(block)
                target.flush()
            except OSError:
                continue  # a full disk, or a reader that has left, does not end a run
        if stream is self._process.stderr:
            *lines, self._line = (self._line + block).split(b"\n")
            self._lines.extend(line.decode(errors="replace") for line in lines)
            self._line = self._line[-(2**16) :]
        return True

    def poll(self) -> int | None:
        """Return how it ended (its code, or minus the signal's number); None while it runs."""
        code = self._process.poll()
        if code is not None and self.ended is None:
            self.hear()
            self.ended = time.monotonic()
            for stream in self._copies:
                stream.close()
            self._copies.clear()
            if self._line:
                self._lines.append(self._line.decode(errors="replace"))
            self._log.close()
        return code

    @property
    def exit_code(self) -> int:
        """How it ended, as a shell has it: 128 + N for a signal."""
        code = self._process.returncode or 0
        return 128 - code if code < 0 else code

    def send(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        self.last_sent = number
        if self._process.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, with the processes that it has started in its session."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def cause(self) -> str:
        """In one line, why it ended: the signal, or the last line of its message."""
        code = self._process.returncode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"killed by {name}{' (perhaps out of memory)' if -code == signal.SIGKILL else ''}"
        message = [line for line in self.message() if not _NOISE.match(line)]
        return message[-1].strip() if message else f"exit code {code}, without a message"

    def message(self) -> list[str]:
        """The end of what it printed to stderr: its last traceback or stack, or its last line."""
        lines = list(self._lines)
        while lines and not lines[-1].strip():
            lines.pop()
        starts = [number for number, line in enumerate(lines) if line.startswith(_HEADS)]
        if not starts:
            return lines[-1:]
        head, *rest = lines[starts[-1] :]
        return [head, *([] if len(rest) <= SHOWN_LINES else ["  ..."]), *rest[-SHOWN_LINES:]]


def _end_with_parent() -> None:
    """Be asked to end when the supervisor is gone."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
