# SPDX-License-Identifier: Apache-2.0
"""``tools/serve.py`` as a person and a supervisor use it: options, signals, exit codes."""

import asyncio
import importlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import paddle
import pytest
import served
import yaml

from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.geometry import ResizeImage
from ppcls.data.transforms.tensor import NormalizeImage, ToCHWImage
from ppcls.deploy import parity
from ppcls.deploy.export import Wanted, export_model

toy_bundle = pytest.importorskip("toy_bundle")
RED = toy_bundle.picture(0)
WITHOUT_TRAINING = """
import runpy, sys
for name in ("paddle", "ppcls.engine", "ppcls.arch", "ppcls.loss", "ppcls.optimizer"):
    sys.modules[name] = None  # importing it fails
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def tool(tmp_path):
    """Run the tool where it is expected to end by itself."""

    def call(*options, before=()):
        command = [sys.executable, *before, str(served.ROOT / "tools" / "serve.py"), *map(str, options)]
        environment = {**os.environ, "PYTHONWARNINGS": "", "PYTHONPATH": str(served.ROOT)}
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=served.PATIENCE
        )
        return done.returncode, done.stdout, done.stderr

    return call


def test_a_bundle_that_is_none_is_refused_in_one_line(tool, tmp_path):
    code, _, says = tool("--bundle", tmp_path / "none")
    assert (code, says.count("\n")) == (5, 1) and "there is no such directory" in says


def test_limits_out_of_range_or_against_each_other_are_all_refused():
    from ppcls.serve.limits import Limits
    from ppcls.utils.errors import ConfigError

    with pytest.raises(ConfigError) as caught:
        Limits(max_batch=0, max_images=5, max_queue=2, body_seconds=float("nan"), max_pixels=10**12, max_held_bytes=1)
    assert caught.value.problems == [
        "--max_batch: expected at least 1; got 0",
        "--body_seconds: expected more than 0; got nan",
        "--max_pixels: more than 89478485 are never decoded; got 1000000000000",
        "--max_images: 5 images of one request never fit into --max_queue 2",
        "--max_request_bytes: 33554432 never fit into --max_held_bytes 1",
    ]


def test_a_port_that_is_taken_is_refused_in_one_line(bundle, model):
    from ppcls.serve.server import Server, Serving
    from ppcls.utils.errors import ConfigError

    async def life(port):
        await Server(Serving(str(bundle), port=port)).run(model, take_signals=False)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"^--host 127.0.0.1 --port {port}: cannot listen there .*another port"):
            asyncio.run(life(port))


def test_sighup_reloads_and_sigint_ends_without_paddle_or_training_code(bundle, tmp_path, process, monkeypatch):
    own = toy_bundle.write_bundle(tmp_path / "own")
    monkeypatch.setattr(served, "BEFORE", ["-c", WITHOUT_TRAINING])
    monkeypatch.setenv("PYTHONPATH", str(served.ROOT))
    server = process(directory=own)
    assert server.ask(RED).classes == ["red"]
    toy_bundle.write_bundle(own, ("rouge", "vert", "bleu"))
    server.signal(signal.SIGHUP)
    server.wait_for_line("reloaded: bundle ")
    assert server.ask(RED).classes == ["rouge"]
    (own / "model.onnx").write_bytes(b"")
    server.signal(signal.SIGHUP)
    server.wait_for_line("the bundle is not reloaded, the one before answers on: ")
    assert server.ask(RED).classes == ["rouge"]
    server.signal(signal.SIGINT)
    assert server.wait() == 0
    assert server.log.read_text() == ""


def test_an_open_address_without_a_token_is_warned_of():
    from ppcls.serve.server import exposure
    from ppcls.serve.token import Token

    for host in ("0.0.0.0", "::", "192.0.2.1", "fe80::1%eth0"):
        assert exposure(host, None).startswith(
            f"listening at {host} without a token: whoever reaches this address can ask"
        )
        assert exposure(host, Token("correct-horse-battery-staple")) is None
    for host in ("127.0.0.1", "::1", "127.1.2.3"):
        assert exposure(host, None) is None


def test_a_second_signal_ends_at_once(slow_bundle, process, model):
    server = process("--max_request_bytes", 10_000_000, "--drain_seconds", 100, directory=slow_bundle)
    with served.connected(server.port) as stream:
        stream.sendall(served.request_bytes(RED)[:-1])  # a request that would be waited for
        assert server.ask(RED).status == 200  # so the server has seen it
        server.signal(signal.SIGTERM)
        server.wait_for_line("SIGTERM: no more requests are taken in")
        server.signal(signal.SIGTERM)
        assert server.wait() == 143


def test_a_server_whose_lines_nobody_reads_answers_and_ends_all_the_same(bundle, tmp_path, process):
    own = toy_bundle.write_bundle(tmp_path / "own")
    server = process("--reload_seconds", 0.05, directory=own, is_read=False)
    for name in ("rouge", "rot", "rojo"):
        toy_bundle.write_bundle(own, (name, "", ""))  # it says so each time
        ends = time.monotonic() + served.PATIENCE
        while server.ask(RED).classes != [name]:
            assert time.monotonic() < ends
    lost = re.search(rb"(?m)^ppcls_lost_log_lines (\S+)", server.ask(path="/metrics").body)
    assert float(lost[1]) >= 2
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


def test_a_bundle_that_brings_paddle_along_takes_no_signal_away(tmp_path, process, monkeypatch):
    own = toy_bundle.write_bundle(tmp_path / "own")
    server = process("--reload_seconds", 0.05, directory=own)
    described = yaml.safe_load((own / "inference.yml").read_text())
    net = paddle.nn.Sequential(paddle.nn.AdaptiveAvgPool2D(1), paddle.nn.Flatten(), paddle.nn.Linear(3, 3))
    for parameter, value in zip(net.parameters(), (np.eye(3), np.zeros(3))):
        parameter.set_value(10 * value.astype(np.float32))
    monkeypatch.setattr(
        parity, "failure_of_module", lambda module, *given: importlib.import_module(module).main(*map(str, given))
    )
    ops = [DecodeImage(), ResizeImage(size=32), NormalizeImage(mean=[0, 0, 0], std=[1, 1, 1], order=""), ToCHWImage()]
    pictures = [toy_bundle.picture(number) for number in range(3)]
    export_model(net, own, Wanted((3, 32, 32), add_softmax=False), ops, described, pictures)
    server.wait_for_line("reloaded:")
    assert "Paddle" in server.ask(path="/metadata").said["engine"] and server.ask(RED).classes == ["red"]
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert any("ended:" in line for line in server.lines)


def test_a_drain_ends_when_its_time_is_over(bundle, process):
    server = process("--drain_seconds", 0.5)
    with served.connected(server.port) as stream:
        stream.sendall(served.request_bytes(RED)[:-1])
        assert server.ask(RED).status == 200
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    assert any("1 requests were not answered within --drain_seconds 0.5" in line for line in server.lines)


@pytest.mark.promise("F38")
def test_sigterm_under_load_answers_all_that_was_taken_in(slow_bundle, process, times, counted):
    number = times(2, 20)
    for _ in range(number):
        server = process("--max_queue", 16, "--max_images", 16, directory=slow_bundle)
        outcomes, lock, answered = {}, threading.Lock(), threading.Event()

        def client(server=server, outcomes=outcomes, lock=lock, answered=answered):
            """Ask again and again, through connections of its own, until nobody listens."""
            while True:
                try:
                    with socket.create_connection(("127.0.0.1", server.port), timeout=served.PATIENCE) as stream:
                        stream.sendall(served.request_bytes(RED))
                        response = served.read_response(stream)
                except OSError:  # nobody listens, or the request had not been read when the server ended
                    return
                status = response[9:12].decode()
                with lock:
                    outcomes[status] = outcomes.get(status, 0) + 1
                    if outcomes.get("200", 0) >= 20:
                        answered.set()
                if status in ("", "503"):
                    time.sleep(0.005)
                if not status:
                    return
                assert status != "200" or b'"red"' in response

        with ThreadPoolExecutor(24) as pool:
            clients = [pool.submit(client) for _ in range(24)]
            assert answered.wait(served.PATIENCE)
            started = time.monotonic()
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
            took = time.monotonic() - started
            for each in clients:
                each.result()
        ended = [line for line in server.lines if "ended:" in line]
        assert len(ended) == 1 and "not answered" not in "".join(server.lines), server.lines
        # What the server has answered with 200, its clients have got.
        (counts,) = [re.search(r"(\d+) images answered in all", line) for line in ended]
        assert int(counts[1]) == outcomes["200"], outcomes
        assert took < 10 + 20  # --drain_seconds, and what a slow machine needs to end Python
        assert server.log.read_text() == ""
    counted(number)
