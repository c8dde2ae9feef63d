# SPDX-License-Identifier: Apache-2.0
"""The life of a server: it listens, it answers, it is told to end, it finishes what it has begun."""

from __future__ import annotations

import asyncio
import faulthandler
import ipaddress
import logging
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from ppcls.serve.app import App
from ppcls.serve.connections import Connections
from ppcls.serve.limits import Limits
from ppcls.serve.metrics import Metrics
from ppcls.serve.model import ServedModel
from ppcls.serve.reload import Reloader
from ppcls.serve.service import Service
from ppcls.serve.token import Token
from ppcls.utils.cli import leave
from ppcls.utils.errors import ConfigError
from ppcls.utils.logger import num_lost_lines
from ppcls.utils.stderr import keep_for_python

logger = logging.getLogger(__name__)
LINGER_SECONDS = 2.0
"""How long the rest of a request is read that was answered before its end, so that the client reads the answer."""
POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Serving:
    """What to serve, and where.

    Attributes:
        directory: the bundle.
        runtime: the engine, or ``auto``.
        device: where it runs.
        threads: of the CPU; None for all cores.
        host: the address to listen at.
        port: the port; 0 for any that is free.
        limits: what is taken in.
        token: what clients have to know, or None.
        reload_seconds: how often to look for a new bundle; 0 for only when SIGHUP comes.
    """

    directory: str
    runtime: str = "auto"
    device: str = "cpu"
    threads: int | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    limits: Limits = Limits()
    token: Token | None = None
    reload_seconds: float = 0.0

    def load(self) -> ServedModel:
        """Read the bundle and try it."""
        return ServedModel(self.directory, self.runtime, self.device, self.threads, self.limits.max_batch)


class Server:
    """One server. `run` is its life; `stop` may be called from its loop, or a signal does it.

    Args:
        serving: what and where.
        on_ready: called with the address when requests are taken in.
    """

    def __init__(self, serving: Serving, on_ready: Callable[[str], None] | None = None) -> None:
        self.serving, self.limits = serving, serving.limits
        self.on_ready = on_ready
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """Take nothing more in, and end when what is taken in is answered."""
        self._stopping.set()

    async def run(self, model: ServedModel, take_signals: bool = True) -> None:
        """Serve until it is stopped.

        Args:
            model: what answers first.
            take_signals: SIGTERM and SIGINT stop it, SIGHUP reloads. Only in the main thread.

        Raises:
            ConfigError: it cannot listen there.
        """
        metrics = Metrics()
        metrics.lost_lines.set_function(num_lost_lines)
        self.service = Service(model, self.limits, metrics)
        del model  # which may be replaced, and is not to be held then
        self.connections = Connections(self.limits, metrics, lambda: not self.service.has_room())
        self.app = App(self.service, self.connections, self.serving.token)
        take = self._take_signals if take_signals else lambda: None
        self.reloader = Reloader(self.serving.directory, self.serving.load, self.service, take)
        runner = web.AppRunner(
            self.app.build(),
            handle_signals=False,
            access_log=None,
            logger=_protocol_logger(metrics),
            keepalive_timeout=self.limits.idle_seconds,
            lingering_time=LINGER_SECONDS,
            handler_cancellation=True,
            auto_decompress=False,
            shutdown_timeout=1.0,
        )
        await runner.setup()
        try:
            listening = await self._listen(runner)
            take()
            self._spawn(self.connections.sweep())
            if self.serving.reload_seconds:
                self._spawn(self.reloader.watch(self.serving.reload_seconds))
            self._say_ready(self.service.model, listening)
            await self._stopping.wait()
            await self._drain(listening)
        finally:
            for task in self._tasks:
                task.cancel()
            await runner.cleanup()
            has_ended = self.service.close(timeout=1.0)
        if take_signals and not has_ended:
            leave(0)  # the model runs in a library that cannot be told to stop, and must not see Python end

    async def _listen(self, runner: web.AppRunner) -> asyncio.base_events.Server:
        assert runner.server is not None
        loop, serving = asyncio.get_running_loop(), self.serving
        factory = self.connections.factory(runner.server)
        try:
            return await loop.create_server(factory, serving.host, serving.port, backlog=self.limits.max_connections)
        except (OSError, OverflowError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"--host {serving.host} --port {serving.port}: cannot listen there ({reason}); "
                "write another port, or 0 for any that is free"
            ) from error

    def _say_ready(self, model: ServedModel, listening: asyncio.base_events.Server) -> None:
        host, port = listening.sockets[0].getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        if warning := exposure(host, self.serving.token):
            logger.warning("%s", warning)
        logger.info(
            "%s answers at %s (%s, batches of up to %d); Ctrl-C or SIGTERM ends it",
            *(model.classifier.bundle.graph.model_name, url, model.classifier.description, self.limits.max_batch),
        )
        if self.on_ready:
            self.on_ready(url)

    async def _drain(self, listening: asyncio.base_events.Server) -> None:
        started, taken = time.monotonic(), self.app.num_requests
        self.app.is_draining = True
        listening.close()
        while self.app.num_requests and time.monotonic() - started < self.limits.drain_seconds:
            await asyncio.sleep(POLL_SECONDS)
        if self.app.num_requests:
            logger.warning(
                "%d requests were not answered within --drain_seconds %g",
                self.app.num_requests,
                self.limits.drain_seconds,
            )
        else:
            total = self.service.num_answered
            logger.info("ended: the %d requests under way were answered; %d images answered in all", taken, total)

    def _take_signals(self) -> None:
        faulthandler.disable()
        faulthandler.enable(sys.stderr)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) != signal.SIG_IGN:  # as a background job has it
                loop.add_signal_handler(number, self._asked_to_end, number)
        if hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, lambda: self._spawn(self.reloader.reload()))

    def _asked_to_end(self, number: int) -> None:
        if self._stopping.is_set():
            leave(128 + number)
        self.stop()
        logger.info("%s: no more requests are taken in", signal.Signals(number).name)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def exposure(host: str, token: Token | None) -> str | None:
    """What is to be said of listening at an address; None where there is nothing."""
    if token is not None or ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        return None
    return f"listening at {host} without a token: whoever reaches this address can ask; see --token_file"


def serve(serving: Serving) -> None:
    """Serve until a signal ends it.

    Raises:
        PpclsError: the bundle cannot be used, or the address not be listened at.
    """
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # there is nothing to reload yet
    models = [serving.load()]
    keep_for_python()

    async def life() -> None:
        await Server(serving).run(models.pop())

    asyncio.run(life())


class _OneLine(logging.Handler):
    """What aiohttp says of requests that are none is counted; anything else is one line, without a traceback."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__()
        self.metrics = metrics

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            self.metrics.requests.labels(400).inc()
        elif record.levelno >= logging.WARNING and not isinstance(error, ConnectionError):  # a client that left
            logger.error("%s (%s: %s)", record.getMessage(), type(error).__name__, error)


def _protocol_logger(metrics: Metrics) -> logging.Logger:
    protocol = logging.Logger("ppcls.serve.http", logging.DEBUG)
    protocol.addHandler(_OneLine(metrics))
    return protocol
