# SPDX-License-Identifier: Apache-2.0
"""A server within the test's process or in one of its own, and clients that do what they are told, byte by byte."""

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60
"""Seconds after which a test gives up; nothing is expected to take as long."""
BEFORE = []
"""What stands between Python and the tool."""


class Answer(NamedTuple):
    status: int
    headers: dict
    body: bytes

    @property
    def said(self):
        return json.loads(self.body)

    @property
    def classes(self):
        return [result["label_names"][0] for result in self.said["results"]]


def ask(port, body=None, path="/predict", method=None, headers=None):
    """One request through a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers or {})
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def form(*parts, boundary="a-boundary", end=True):
    """The body and the headers of a form with files: (name, bytes) each."""
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'.encode()
        + data
        + b"\r\n"
        for name, data in parts
    )
    body += f"--{boundary}--\r\n".encode() if end else b""
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def send(port, *pieces, shut=False):
    """Send these bytes and read until the server closes the connection, or has answered and waits."""
    with connected(port) as stream:
        for piece in pieces:
            stream.sendall(piece)
        if shut:
            stream.shutdown(socket.SHUT_WR)
        return read_response(stream)


@contextmanager
def connected(port):
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as stream:
        yield stream


def read_response(stream):
    """The next whole response, or what came before the connection was closed."""
    data = b""
    try:
        while True:
            head, found, rest = data.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            if found and length and len(rest) >= int(length[1]):
                return data
            more = stream.recv(65536)
            if not more:
                return data
            data += more
    except ConnectionError:
        return data


def request_bytes(body, head="", path="/predict"):
    start = f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n{head}\r\n"
    return start.encode() + body


class Gate:
    """Holds the model back until it is opened, and remembers what it was asked."""

    def __init__(self, model):
        self.opened, self.entered = threading.Event(), threading.Event()
        self.batches = []
        self._answer, model.answer = model.answer, self
        self.model = model

    def __call__(self, images, names):
        self.batches.append(list(names))
        self.entered.set()
        assert self.opened.wait(PATIENCE)
        return self._answer(images, names)


class ThreadedServer:
    """A server in a thread of this process."""

    def __init__(self, directory, limits, token=None, reload_seconds=0.0, model=None):
        from ppcls.serve.server import Server, Serving

        serving = Serving(str(directory), port=0, threads=1, limits=limits, token=token, reload_seconds=reload_seconds)
        self.model = model or serving.load()
        ready = threading.Event()
        self.failure = None

        async def life():
            self.loop = asyncio.get_running_loop()
            self.server = Server(serving, lambda url: (setattr(self, "url", url), ready.set()))
            await self.server.run(self.model, take_signals=False)

        def work():
            try:
                asyncio.run(life())
            except Exception as error:  # noqa: BLE001 (raised where the test waits)
                self.failure = error
            finally:
                ready.set()

        self.thread = threading.Thread(target=work)
        self.thread.start()
        assert ready.wait(PATIENCE)
        if self.failure:
            raise self.failure
        self.port = int(self.url.rpartition(":")[2])

    def call(self, work):
        """Call something in the server's thread and return its result."""

        async def inside():
            return work()

        return asyncio.run_coroutine_threadsafe(inside(), self.loop).result(PATIENCE)

    def wait_for(self, condition):
        """Wait until something is true, as seen in the server's thread."""

        async def watch():
            while not condition(self.server):
                await asyncio.sleep(0.005)

        asyncio.run_coroutine_threadsafe(watch(), self.loop).result(PATIENCE)

    def run(self, coroutine):
        """Run a coroutine in the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE)

    def metric(self, name, **labels):
        return self.server.service.metrics.registry.get_sample_value(name, labels) or 0

    def ask(self, *arguments, **named):
        return ask(self.port, *arguments, **named)

    def stop(self):
        self.loop.call_soon_threadsafe(self.server.stop)
        self.join()

    def join(self):
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        if self.failure:
            raise self.failure


class ServerProcess:
    """``tools/serve.py`` in a process of its own."""

    def __init__(self, directory, *options, log, is_read=True):
        self.log = Path(log)
        command = [sys.executable, *BEFORE, str(ROOT / "tools" / "serve.py"), "--bundle", str(directory), "--port", "0"]
        environment = {**os.environ, "PYTHONWARNINGS": "", "PYTHONUNBUFFERED": "1"}
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                [*command, "--threads", "1", *map(str, options)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                # As from a terminal, whatever the tests are run by.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.search(r" at http://[\d.]+:(\d+) ", line):
                self.port = int(found[1])
                break
        else:
            self.process.stdout.close()
            raise AssertionError(self.process.wait(), self.log.read_text())
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        if is_read:
            self._reader.start()
        else:
            self.process.stdout.close()  # who reads what it says has left

    def _read(self):
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line)
                self._changed.notify_all()

    def wait_for_line(self, text):
        self.wait_for_lines(text, 1)

    def wait_for_lines(self, text, number):
        with self._changed:
            assert self._changed.wait_for(lambda: sum(text in line for line in self.lines) >= number, PATIENCE), (
                self.lines
            )

    def ask(self, *arguments, **named):
        return ask(self.port, *arguments, **named)

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self):
        """The exit code."""
        code = self.process.wait(PATIENCE)
        if self._reader.ident:
            self._reader.join(PATIENCE)
        return code

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self._reader.ident:
            self._reader.join(PATIENCE)
        self.process.stdout.close()
