# SPDX-License-Identifier: Apache-2.0
"""How the supervisors of several machines agree on each start, and on whether there is another one."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from ppcls.utils.errors import ConfigError, PeerError, Stopped

MAX_MESSAGE_BYTES = 2**20
POLL_SECONDS = 0.2
FREE_PORTS = range(20000, 32000)
"""Below those that Linux gives to outgoing connections, one of which may take a port that was free a moment ago."""


@dataclass(frozen=True)
class Outcome:
    """How the processes of one machine have ended; before the first start, no code."""

    code: int | None = None
    text: str = ""


@dataclass(frozen=True)
class Verdict:
    """That there is no other start: the exit code, and why."""

    code: int
    text: str = ""


@dataclass(frozen=True)
class Start:
    """What the processes of one start have to know.

    Attributes:
        store: where they meet, ``host:port``.
        ends: an address for each of them, in the order of ranks.
        first: the rank of the first one on this machine.
    """

    store: str
    ends: list[str]
    first: int


Decide = Callable[[dict[int, Outcome]], "Verdict | None"]
"""From the outcomes by machine to a verdict, or None for another start."""


@dataclass
class Rendezvous:
    """Where supervisors meet; one that is alone meets nobody.

    Args:
        num_processes: on this machine.
        node: the number of this machine, from 0.
        num_nodes: machines.
        master: ``host:port`` of the first one, for several.
        job: a name; machines of another job are refused.
        patience: seconds that the machines wait for each other.
        stopped_by: the signal that ends a wait, once there was one.
        say: takes a line for people.
    """

    num_processes: int
    node: int = 0
    num_nodes: int = 1
    master: str | None = None
    job: str = "default"
    patience: float = 900.0
    stopped_by: Callable[[], int | None] = lambda: None
    say: Callable[[str], None] = lambda text: None
    _listener: socket.socket | None = field(default=None, repr=False)

    def agree(self, outcome: Outcome, decide: Decide) -> Start | Verdict:
        """Tell how the last start has ended, and hear what is next; the first machine decides.

        Raises:
            ConfigError: the addresses do not make sense, or machines of two jobs meet.
            PeerError: another machine does not come.
            Stopped: a signal has come.
        """
        if self.num_nodes == 1:
            verdict = decide({0: outcome})
            ends = [f"127.0.0.1:{port}" for port in free_ports(self.num_processes + 1)]
            return verdict or Start(ends[0], ends[1:], 0)
        return self._host(outcome, decide) if self.node == 0 else self._visit(outcome)

    def close(self) -> None:
        """Leave the meeting place."""
        if self._listener is not None:
            self._listener.close()

    @property
    def _place(self) -> tuple[str, int]:
        host, _, port = (self.master or "").rpartition(":")
        if not host or not port.isdecimal():
            raise ConfigError(f"--master: {self.master}; expected an address and a port, such as 10.0.0.1:36123")
        return host, int(port)

    def _host(self, outcome: Outcome, decide: Decide) -> Start | Verdict:
        host, port = self._place
        if self._listener is None:
            self._listener = _listening(host, port)
        ends = {0: [f"{host}:{number}" for number in free_ports(self.num_processes + 1)]}
        outcomes = {0: outcome}
        with ExitStack() as stack:
            guests: dict[int, socket.socket] = {}
            deadline = time.monotonic() + self.patience
            while len(outcomes) < self.num_nodes:
                self._require_time(
                    deadline, f"{self.num_nodes - len(outcomes)} of {self.num_nodes} machines do not come"
                )
                with suppress(TimeoutError, ConnectionError, ValueError, KeyError, TypeError):
                    guest = stack.enter_context(_accepted(self._listener))
                    told = _received(guest)
                    node = int(told["node"])
                    if told["job"] != self.job or not 0 < node < self.num_nodes:
                        _send(guest, {"refused": f"job {self.job} of {self.num_nodes} machines meets at {self.master}"})
                        continue
                    # One that comes again has been started anew meanwhile.
                    guests[node], ends[node] = guest, list(told["ends"])
                    outcomes[node] = Outcome(told["code"], str(told["text"]))
            verdict = decide(outcomes)
            every = [end for node in sorted(ends) for end in (ends[node] if node else ends[0][1:])]
            for node, guest in guests.items():
                first = sum(len(ends[other]) - (other == 0) for other in range(node))
                with suppress(OSError):
                    _send(
                        guest,
                        {"code": verdict.code, "text": verdict.text}
                        if verdict
                        else {"store": ends[0][0], "ends": every, "first": first},
                    )
        return verdict or Start(ends[0][0], every, 0)

    def _visit(self, outcome: Outcome) -> Start | Verdict:
        place = self._place
        deadline = time.monotonic() + self.patience
        is_told = False
        while True:
            self._require_time(deadline, f"the first machine does not answer at {self.master}")
            try:
                with socket.create_connection(place, POLL_SECONDS * 10) as host:
                    own = host.getsockname()[0]
                    ends = [f"{own}:{port}" for port in free_ports(self.num_processes)]
                    _send(host, {"job": self.job, "node": self.node, "ends": ends, **vars(outcome)})
                    answer = _received(host, lambda: self._require_time(deadline, "the other machines do not come"))
            except (OSError, ValueError) as error:
                if not is_told:
                    is_told = True
                    self.say(f"waiting for the first machine at {self.master} ({error}), up to {self.patience:.0f} s")
                time.sleep(POLL_SECONDS)
                continue
            if "refused" in answer:
                raise ConfigError(f"--master: {answer['refused']}, and this is machine {self.node} of job {self.job}")
            return Start(**answer) if "store" in answer else Verdict(**answer)

    def _require_time(self, deadline: float, text: str) -> None:
        if number := self.stopped_by():
            raise Stopped(number)
        if time.monotonic() > deadline:
            raise PeerError(f"{text} ({self.patience:.0f} s); see what the others say")


def free_ports(number: int) -> list[int]:
    """Return ports that nobody listens on now."""
    with ExitStack() as stack:
        found: list[int] = []
        for port in random.sample(FREE_PORTS, len(FREE_PORTS)):
            probe = stack.enter_context(socket.socket())
            with suppress(OSError):
                probe.bind(("", port))
                found.append(port)
            if len(found) == number:
                break
        return found


def _listening(host: str, port: int) -> socket.socket:
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
        listener.settimeout(POLL_SECONDS)
        return listener
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"--master: {host}:{port} cannot be listened at ({error.strerror}); is this machine 0?"
        ) from error


def _accepted(listener: socket.socket) -> socket.socket:
    guest, _ = listener.accept()
    guest.settimeout(POLL_SECONDS * 10)
    return guest


def _send(other: socket.socket, message: dict[str, Any]) -> None:
    other.sendall(json.dumps(message).encode() + b"\n")


def _received(other: socket.socket, between: Callable[[], None] | None = None) -> dict[str, Any]:
    data = b""
    other.settimeout(POLL_SECONDS if between else POLL_SECONDS * 10)
    while not data.endswith(b"\n"):
        try:
            block = other.recv(2**16)
        except socket.timeout:
            if between is None:
                raise
            between()
            continue
        data += block
        if not block or len(data) > MAX_MESSAGE_BYTES:
            raise ConnectionError("left in the middle of a message")
    try:
        message = json.loads(data)
    except RecursionError:
        message = None
    if not isinstance(message, dict):
        raise ValueError("not a message")
    return message
