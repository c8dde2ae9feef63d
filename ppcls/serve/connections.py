# SPDX-License-Identifier: Apache-2.0
"""Connections have a number and an age: what is slow, or one too many, is closed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator

from ppcls.serve.limits import Limits
from ppcls.serve.metrics import Metrics
from ppcls.serve.shed import is_whole_request

SWEEP_SECONDS = 0.25
WRITE_SECONDS = 10.0
"""Time for an answer to be fetched by a client that reads slowly."""
CLOSE_SECONDS = 2.0


class Connection(asyncio.Protocol):
    """Stands between a socket and aiohttp's protocol, and knows until when what has to happen.

    aiohttp itself ends connections that are idle, not those whose request trickles in.

    Args:
        inner: aiohttp's.
        connections: what it belongs to.
    """

    def __init__(self, inner: asyncio.Protocol, connections: Connections) -> None:
        self.inner, self.connections = inner, connections
        self.transport: asyncio.Transport | None = None
        self.is_answering = self.is_in_head = self.is_closing = False
        self.is_at_start = True
        self.ends = time.monotonic() + connections.limits.head_seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take it, or refuse it in one line where there are too many."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if not self.connections.add(self):
            transport.write(_TOO_MANY)
            transport.close()
            self.transport = None
            return
        self.inner.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Forget it."""
        if self.transport is not None:
            self.connections.remove(self)
            self.inner.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """Hand on, unless it is to be refused anyway."""
        if self.transport is None or self.is_closing:
            return
        if self.is_answering:
            self.is_at_start = False  # it may be the next request already: from here on only aiohttp knows
        elif not self.is_in_head:
            limits = self.connections.limits
            if self.is_at_start and self.connections.is_full() and is_whole_request(data):
                self.connections.metrics.requests.labels(503).inc()
                self.transport.write(_FULL)
                self.ends = time.monotonic() + limits.idle_seconds
                return
            self.is_in_head = True
            self.ends = time.monotonic() + limits.head_seconds
        self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        """A client that says no more is gone: nothing tells it from one that still listens."""
        return self.inner.eof_received() if self.transport is not None else None

    def pause_writing(self) -> None:
        """Hand on."""
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        """Hand on."""
        self.inner.resume_writing()

    def begin(self) -> None:
        """The head of a request has come."""
        limits = self.connections.limits
        self.is_answering, self.is_in_head = True, False
        self.ends = time.monotonic() + limits.body_seconds + limits.deadline_seconds + WRITE_SECONDS

    def end(self, is_read: bool) -> None:
        """Its answer is written; whether it was read to its end before."""
        self.is_answering = False
        self.is_at_start &= is_read
        self.ends = time.monotonic() + self.connections.limits.idle_seconds

    def expire(self) -> None:
        """Close what has taken too long; with a word where a request has begun to come."""
        assert self.transport is not None
        if self.is_answering or self.is_closing:
            self.transport.abort()
            return
        if self.is_in_head:
            self.connections.metrics.requests.labels(408).inc()
            self.transport.write(plain_response(408, "Request Timeout", "the request's head came too slowly"))
        self.is_closing = True
        self.ends = time.monotonic() + CLOSE_SECONDS  # for what is written to be fetched
        self.transport.close()


class Connections:
    """All open connections.

    Args:
        limits: number and times.
        metrics: where they are counted.
        is_full: whether every request for answers would be refused now.
    """

    def __init__(self, limits: Limits, metrics: Metrics, is_full: Callable[[], bool]) -> None:
        self.limits, self.metrics, self.is_full = limits, metrics, is_full
        self._open: dict[asyncio.BaseTransport, Connection] = {}

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._open.values()))

    def factory(self, make: Callable[[], asyncio.Protocol]) -> Callable[[], Connection]:
        """What an event loop calls for each new connection."""
        return lambda: Connection(make(), self)

    def of(self, transport: asyncio.BaseTransport | None) -> Connection | None:
        """The connection that a request came through; None when it is closed."""
        return self._open.get(transport) if transport is not None else None

    def add(self, connection: Connection) -> bool:
        """Count one more; False if that is too many."""
        if len(self._open) >= self.limits.max_connections:
            self.metrics.requests.labels(503).inc()
            return False
        assert connection.transport is not None
        self._open[connection.transport] = connection
        self.metrics.connections.set(len(self._open))
        return True

    def remove(self, connection: Connection) -> None:
        """Count one less."""
        assert connection.transport is not None
        self._open.pop(connection.transport, None)
        self.metrics.connections.set(len(self._open))

    async def sweep(self) -> None:
        """Look again and again for those whose time is over; never returns."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            for connection in self:
                if now > connection.ends:
                    connection.expire()


def plain_response(status: int, reason: str, says: str, close: bool = True) -> bytes:
    """A whole response, for where no request has come to be."""
    body = json.dumps({"error": says}).encode()
    retry = "Retry-After: 1\r\n" if status == 503 else ""
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    connection = "Connection: close\r\n" if close else ""
    return f"{head}{retry}{connection}\r\n".encode() + body


FULL_SAYS = "too many images are waiting; try again later"
_FULL = plain_response(503, "Service Unavailable", FULL_SAYS, close=False)
_TOO_MANY = plain_response(503, "Service Unavailable", "too many connections; try again later")
