# SPDX-License-Identifier: Apache-2.0
"""How the processes of a run talk beside their training: each with the first one, in lines of JSON over TCP."""

from __future__ import annotations

import json
import os
import secrets
import selectors
import socket
import weakref
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ppcls.utils import dist

MAX_LINE_BYTES = 2**16
CONNECT_SECONDS = 20.0

Message = dict[str, Any]


class Line:
    """One connection. Nothing here waits: what the other side does not take is kept for later."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.rank: int | None = None  # until it has said so
        self._received = b""
        self._unsent = b""
        _open.add(connection)

    def send(self, message: Message) -> None:
        """Send a message, or what the other side has not taken of those before it. A broken connection is no error."""
        self._unsent += json.dumps(message).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Send what has been kept."""
        try:
            while self._unsent:
                self._unsent = self._unsent[self.socket.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError:
            self._unsent = b""  # it is broken, which reading finds out

    @property
    def is_behind(self) -> bool:
        """Whether the other side has not taken all."""
        return bool(self._unsent)

    def receive(self) -> tuple[list[Message], bool]:
        """Return the messages that have arrived, and whether the connection still stands."""
        is_open = True
        try:
            while block := self.socket.recv(MAX_LINE_BYTES):
                self._received += block
                if len(self._received) > MAX_LINE_BYTES and b"\n" not in self._received:
                    raise ConnectionError
            is_open = False
        except BlockingIOError:
            pass
        except OSError:
            is_open = False
        *lines, self._received = self._received.split(b"\n")
        try:
            messages = [json.loads(line) for line in lines]
        except (ValueError, RecursionError):
            return [], False
        return [message for message in messages if isinstance(message, dict)], is_open

    def finish(self, seconds: float = 0.0) -> None:
        """Close the connection; wait so long at most until the other side has read everything and closed it too."""
        try:
            # Closed with something unread, it would take back what it has sent.
            self.socket.settimeout(max(seconds, 0.01))
            self.socket.sendall(self._unsent)
            self.socket.shutdown(socket.SHUT_WR)
            while seconds and self.socket.recv(MAX_LINE_BYTES):
                pass
        except OSError:
            pass  # there is nobody to tell
        _open.discard(self.socket)
        self.socket.close()


class Link:
    """What one process has of it: the first a line to each of the others, any other one line to the first.

    Made by all processes together.

    Raises:
        ConnectionError: a process cannot reach the first one, or that one cannot listen; in all of them.
    """

    def __init__(self) -> None:
        self.lines: dict[int, Line] = {}
        self._selector = selectors.DefaultSelector()
        self._wake, self._awake = socket.socketpair()
        self._awake.setblocking(False)
        self._listener: socket.socket | None = None
        self._token = secrets.token_hex(16)
        self._selector.register(self._awake, selectors.EVENT_READ)
        _open.update((self._wake, self._awake))
        failures = dist.gathered(self._connect(dist.gathered(self._listen())[0]))
        if told := [f"process {rank}: {failure}" for rank, failure in enumerate(failures) if failure]:
            self.close()
            raise ConnectionError(told[0])

    def _listen(self) -> list[Any] | None:
        if not dist.is_main():
            return None
        host = dist.main_host()
        self._listener = _listening(host)
        if self._listener is None:
            return None
        _open.add(self._listener)
        self._selector.register(self._listener, selectors.EVENT_READ)
        return [host, self._listener.getsockname()[1], self._token]

    def _connect(self, place: list[Any] | None) -> str | None:
        """Call the first process; the failure."""
        if place is None:
            return "it cannot listen" if dist.is_main() else None
        if dist.is_main():
            return None
        host, port, token = place
        try:
            connection = socket.create_connection((host, port), CONNECT_SECONDS)
        except OSError as error:
            return f"{host}:{port}: {error.strerror or error}"
        line = self.lines[0] = Line(connection)
        line.rank = 0
        line.send({"token": token, "rank": dist.rank()})
        self._selector.register(connection, selectors.EVENT_READ, line)
        return None

    def wake(self) -> None:
        """End a wait in `messages`, from another thread; also when that one has closed this already."""
        with suppress(OSError):
            self._wake.send(b"\0")

    def messages(self, seconds: float) -> Iterator[tuple[int, Message | None]]:
        """Wait so long at most; give what arrives with the rank that it is from, and None for a line that breaks."""
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._awake:
                self._awake.recv(2**10)
            elif key.fileobj is self._listener:
                self._accept()
            else:
                yield from self._of(key.data)

    def send(self, message: Message, only_ready: bool = False) -> None:
        """Send along every line, or those whose other side has taken all before it."""
        for line in self.lines.values():
            if only_ready and line.is_behind:
                line.flush()
            else:
                line.send(message)

    def close(self, seconds: float = 0.0) -> None:
        """Close everything; wait so long at most for each line until what was sent has been read."""
        for key in list(self._selector.get_map().values()):
            self._selector.unregister(key.fileobj)
            if isinstance(key.data, Line):
                key.data.finish(seconds)
        for end in (self._wake, self._awake, self._listener):
            if end is not None:
                _open.discard(end)
                end.close()
        self._selector.close()
        self.lines.clear()

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # it has left again
        line = Line(connection)
        self._selector.register(connection, selectors.EVENT_READ, line)

    def _of(self, line: Line) -> Iterator[tuple[int, Message | None]]:
        messages, is_open = line.receive()
        if line.rank is None and messages:
            # Anybody can connect; only a process of this run knows the token.
            hello = messages[0]
            rank = hello.get("rank")
            if not isinstance(rank, int) or not secrets.compare_digest(str(hello.get("token")), self._token):
                is_open, messages = False, []
            else:
                line.rank, messages = rank, messages[1:]
                self.lines[rank] = line
        if line.rank is not None:
            for message in messages:
                yield line.rank, message
        if not is_open:
            self._selector.unregister(line.socket)
            line.finish()
            if line.rank is not None and self.lines.pop(line.rank, None) is not None:
                yield line.rank, None


def _listening(host: str) -> socket.socket | None:
    """A listener at the address by which others know this machine, or else at all of them."""
    for address in (host, ""):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.bind((address, 0))
            listener.listen(socket.SOMAXCONN)
            listener.setblocking(False)
            return listener
        except OSError:
            listener.close()
    return None


_open: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def _let_go() -> None:
    for connection in list(_open):
        connection.close()


# That a process has died shows by its connection, which must not live on in its workers.
os.register_at_fork(after_in_child=_let_go)
