# SPDX-License-Identifier: Apache-2.0
"""Requests that are refused at a glance: only those that can be read in one way."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import served

toy_bundle = pytest.importorskip("toy_bundle")
RED = toy_bundle.picture(0)
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"


def test_a_plain_request_is_seen_whole():
    from ppcls.serve.shed import is_whole_request

    assert is_whole_request(HEAD + b"\r\nhello")
    assert is_whole_request(HEAD + b"X-a: b:c\r\ncontent-type:image/png\r\n\r\nhello")
    assert is_whole_request(HEAD.replace(b": 5", b":\t 5 ") + b"\r\n\r\n\r\n\0")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        HEAD,
        HEAD + b"\r\nhell",
        HEAD + b"\r\nhello!",
        HEAD + b"\r\nhello" + HEAD + b"\r\nhello",
        HEAD + b"Content-Length: 5\r\n\r\nhello",
        HEAD + b"Content-Length : 5\r\n\r\nhello",
        HEAD + b" folded: 5\r\n\r\nhello",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nhello",
        HEAD + b"Expect: 100-continue\r\n\r\nhello",
        HEAD + b"Connection: close\r\n\r\nhello",
        HEAD + b"Upgrade: h2c\r\n\r\nhello",
        HEAD + b"X: \0\r\n\r\nhello",
        HEAD + b"X: a\nY: b\r\n\r\nhello",
        HEAD + b"no colon\r\n\r\nhello",
        HEAD + b"X: " + b"a" * 5000 + b"\r\n\r\nhello",
        HEAD.replace(b"5", b"+5") + b"\r\nhello",
        HEAD.replace(b"5", b"5,5") + b"\r\nhello",
        HEAD.replace(b"5", "٥".encode()) + b"\r\nhello",
        HEAD.replace(b"Content-Length: 5\r\n", b"") + b"\r\nhello",
        HEAD.replace(b"Content", b"X-Content") + b"\r\nhello",
        HEAD.replace(b"POST", b"post") + b"\r\nhello",
        HEAD.replace(b"1.1", b"1.0") + b"\r\nhello",
        HEAD.replace(b"/predict", b"/predict?a=b") + b"\r\nhello",
        HEAD.replace(b"/predict", b"/metadata") + b"\r\nhello",
        b"\r\n" + HEAD + b"\r\nhello",
    ],
)
def test_anything_else_is_left_to_the_parser(data):
    from ppcls.serve.shed import is_whole_request

    assert not is_whole_request(data)


@pytest.fixture
def full(start):
    """A server whose queue is full, and what opens it."""
    server = start(max_queue=1, max_images=1)
    gate = served.Gate(server.model)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.ask, RED)
        assert gate.entered.wait(served.PATIENCE)

        def let_go():
            gate.opened.set()
            assert waiting.result().classes == ["red"]
            server.wait_for(lambda running: running.service.has_room())

        yield server, let_go
        gate.opened.set()


def test_one_connection_is_refused_again_and_again_and_then_answered(full):
    server, let_go = full
    with served.connected(server.port) as stream:
        for _ in range(3):
            stream.sendall(served.request_bytes(RED))
            response = served.read_response(stream)
            assert response.startswith(b"HTTP/1.1 503 ") and b"\r\nRetry-After: 1\r\n" in response
            assert list(json.loads(response.partition(b"\r\n\r\n")[2])) == ["error"]
        assert server.metric("ppcls_requests_total", code="503") == 3
        let_go()
        stream.sendall(served.request_bytes(RED))
        assert b'"red"' in served.read_response(stream)


def test_requests_sent_at_once_are_answered_in_order(full):
    server, let_go = full
    health = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with served.connected(server.port) as stream:
        stream.sendall(health + served.request_bytes(RED) + health)
        stream.sendall(served.request_bytes(RED) + b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        data = b"".join(iter(lambda: stream.recv(65536), b""))
    assert [piece[:3] for piece in data.split(b"HTTP/1.1 ")[1:]] == [b"200", b"503", b"200", b"503", b"404"]
    let_go()


def test_what_is_left_of_a_refused_request_is_not_taken_for_another(full):
    server, let_go = full
    inner = served.request_bytes(b"x" * 5)
    outer = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {1000 + len(inner)}\r\n\r\n".encode()
    with served.connected(server.port) as stream:
        stream.sendall(outer + b"y" * 1000)
        assert served.read_response(stream).startswith(b"HTTP/1.1 503 ")
        stream.sendall(inner)
        stream.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        data = b"".join(iter(lambda: stream.recv(65536), b""))
    assert [piece[:3] for piece in data.split(b"HTTP/1.1 ")[1:]] in ([b"200"], []), (
        "one answer to the one request that is left"
    )
    let_go()
