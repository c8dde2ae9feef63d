# SPDX-License-Identifier: Apache-2.0
"""Batches, the queue, deadlines and connections, with a model that waits until it is let go."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import served

toy_bundle = pytest.importorskip("toy_bundle")
RED, GREEN, BLUE = (toy_bundle.picture(color) for color in range(3))


@pytest.fixture
def in_background():
    """Ask in a thread: a future answer."""
    with ThreadPoolExecutor(32) as pool:
        yield lambda server, *arguments, **named: pool.submit(server.ask, *arguments, **named)


@pytest.fixture
def gated(start):
    """A server whose model waits; with limits."""
    gates = []

    def begin(**limits):
        server = start(**limits)
        gates.append(served.Gate(server.model))
        return server, gates[-1]

    yield begin
    for gate in gates:
        gate.opened.set()


def queued(number):
    return lambda server: server.service.num_images == number


def test_what_waits_while_the_model_runs_is_answered_together_up_to_the_batch(gated, in_background):
    server, gate = gated(max_batch=4)
    first = in_background(server, RED)
    assert gate.entered.wait(served.PATIENCE)
    rest = [in_background(server, toy_bundle.picture(number % 3)) for number in range(10)]
    # Decoded, all of them: they wait for the model and nothing else.
    server.wait_for(queued(11))
    server.wait_for(lambda running: not running.service._batcher._num_coming)
    gate.opened.set()
    assert first.result().classes == ["red"]
    assert [each.result().classes[0] for each in rest] == [toy_bundle.COLORS[number % 3] for number in range(10)]
    assert [len(batch) for batch in gate.batches] == [1, 4, 4, 2]


def test_more_than_the_queue_holds_is_refused_at_once_and_what_is_in_it_is_answered(gated, in_background):
    server, gate = gated(max_queue=3, max_images=2)
    waiting = [in_background(server, GREEN) for _ in range(3)]
    server.wait_for(queued(3))
    refused = server.ask(BLUE)
    assert refused.status == 503
    assert refused.headers["Retry-After"] == "1"
    assert server.ask(path="/healthz").status == 200
    gate.opened.set()
    assert [each.result().classes for each in waiting] == [["green"]] * 3
    assert server.ask(BLUE).classes == ["blue"]


def test_a_form_that_the_queue_has_no_room_for_is_refused_as_a_whole(gated, in_background):
    server, gate = gated(max_queue=3, max_images=3)
    waiting = [in_background(server, GREEN) for _ in range(2)]
    server.wait_for(queued(2))
    body, headers = served.form(("a", RED), ("b", RED))
    assert server.ask(body, headers=headers).status == 503
    assert server.call(lambda: server.server.service.num_images) == 2
    gate.opened.set()
    assert all(each.result().status == 200 for each in waiting)


def test_a_request_past_its_deadline_is_dropped_before_the_model(gated, in_background):
    server, gate = gated(max_batch=1)
    first = in_background(server, RED)
    assert gate.entered.wait(served.PATIENCE)
    server.server.app.limits = replace(server.server.limits, deadline_seconds=0.05)
    late = in_background(server, BLUE)
    server.wait_for(lambda running: running.service.num_taken == 2)
    threading.Event().wait(0.2)  # the deadline passes
    gate.opened.set()
    assert first.result().status == 200
    assert late.result().status == 503
    assert "not answered in time" in late.result().said["results"][0]["error"]
    assert gate.batches == [["image 0"]]


def test_the_images_of_a_client_that_has_left_do_not_reach_the_model(gated, in_background):
    server, gate = gated(max_batch=1)
    first = in_background(server, RED)
    assert gate.entered.wait(served.PATIENCE)
    body, headers = served.form(("left", BLUE), ("left", GREEN))
    with served.connected(server.port) as stream:
        stream.sendall(served.request_bytes(body, f"Content-Type: {headers['Content-Type']}\r\n"))
        server.wait_for(queued(3))
    server.wait_for(lambda running: running.app.num_requests == 1)
    gate.opened.set()
    assert first.result().status == 200
    server.wait_for(queued(0))
    assert gate.batches == [["image 0"]]


def test_an_image_that_the_model_fails_at_does_not_cost_the_others_their_answers(gated, in_background, caplog):
    server, gate = gated()
    answer = gate._answer

    def fragile(images, names):
        if any(image[2].mean() > 0.5 for image in images):
            raise RuntimeError("out of\nsorts")
        return answer(images, names)

    gate._answer = fragile
    first = in_background(server, RED)
    assert gate.entered.wait(served.PATIENCE)
    rest = [in_background(server, each) for each in (RED, BLUE, GREEN)]
    server.wait_for(queued(4))
    with caplog.at_level(logging.ERROR):
        gate.opened.set()
        assert [each.result().status for each in [first, *rest]] == [200, 200, 500, 200]
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert errors == ["image 0: not answered (RuntimeError: out of)"]
    assert "out of" not in rest[1].result().body.decode()


def test_an_answer_that_is_not_finite_is_no_answer(start, in_background):
    server = start()
    server.model.classifier.graph.predictor = lambda images: np.full([len(images), 3], np.nan)
    answer = server.ask(RED)
    assert (answer.status, list(answer.said["results"][0])) == (500, ["file_name", "error"])


def test_images_of_different_shapes_wait_in_queues_of_their_own():
    from ppcls.serve.batcher import Batcher, Job, Request
    from ppcls.serve.metrics import Metrics

    asked, delivered, done = [], [], threading.Event()
    hold = threading.Event()

    class Model:
        def answer(self, images, names):
            assert hold.wait(served.PATIENCE)
            asked.append((images.shape[1], names))
            return [{"name": name} for name in names]

    def deliver(outcomes):
        delivered.extend(outcome.result["name"] for outcome in outcomes)
        if len(delivered) == 7:
            done.set()

    batcher = Batcher(2, 0.0, Metrics(), deliver)
    request, model = Request(7, float("inf"), lambda: None), Model()
    batcher.expect(7)
    for place, size in enumerate([1, 5, 1, 5, 5, 1, 1]):
        batcher.put(Job(request, place, f"{size}", model, np.zeros([size], np.float32)))
    hold.set()
    assert done.wait(served.PATIENCE)
    batcher.close()
    batcher.thread.join(served.PATIENCE)
    assert sorted(delivered) == ["1"] * 4 + ["5"] * 3
    assert all(len(names) <= 2 and set(names) == {str(size)} for size, names in asked)
    assert len(asked) <= 5


def test_one_connection_too_many_is_refused_and_the_others_live(start, model):
    server = start(model=model, max_connections=2)
    with served.connected(server.port) as one, served.connected(server.port) as other:
        server.wait_for(lambda running: len(list(running.connections)) == 2)
        with served.connected(server.port) as third:
            assert served.read_response(third).startswith(b"HTTP/1.1 503 ")
            assert third.recv(10) == b""
        for stream in (one, other):
            stream.sendall(served.request_bytes(RED))
            assert b'"red"' in served.read_response(stream)
    server.wait_for(lambda running: not list(running.connections))
    assert server.ask(GREEN).classes == ["green"]


def test_a_head_that_trickles_in_is_ended_with_408(start, model):
    server = start(model=model, head_seconds=0.4)
    with served.connected(server.port) as stream:
        stream.sendall(b"POST /predict HT")
        assert served.read_response(stream).startswith(b"HTTP/1.1 408 ")
        assert stream.recv(10) == b""


def test_a_head_that_trickles_in_behind_an_answer_is_ended_as_well(start, model):
    server = start(model=model, head_seconds=0.4)
    with served.connected(server.port) as stream:
        stream.sendall(served.request_bytes(RED))
        assert b'"red"' in served.read_response(stream)
        stream.sendall(b"POST")
        assert served.read_response(stream).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_trickles_in_is_ended_with_408(start, model):
    server = start(model=model, body_seconds=0.4)
    with served.connected(server.port) as stream:
        stream.sendall(served.request_bytes(RED)[:-1])
        assert served.read_response(stream).startswith(b"HTTP/1.1 408 ")


def test_connections_that_say_nothing_are_closed(start, model):
    server = start(model=model, head_seconds=0.3, idle_seconds=0.3)
    with served.connected(server.port) as silent, served.connected(server.port) as idle:
        idle.sendall(served.request_bytes(RED))
        assert b'"red"' in served.read_response(idle)
        assert idle.recv(10) == b""
        assert silent.recv(10) == b""


def test_what_is_held_of_requests_that_are_being_read_is_bounded(start, model):
    server = start(model=model, max_request_bytes=100_000, max_held_bytes=150_000)
    body = bytes(90_000)
    with served.connected(server.port) as first:
        first.sendall(served.request_bytes(body)[:-1])
        server.wait_for(lambda running: running.app.intake._num_held > 80_000)
        assert server.ask(body).status == 503
        first.sendall(body[-1:])
        assert b" 422 " in served.read_response(first)
    server.wait_for(lambda running: running.app.intake._num_held == 0)
    assert server.ask(body).status == 422
