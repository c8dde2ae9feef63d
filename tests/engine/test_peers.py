# SPDX-License-Identifier: Apache-2.0
"""Who stands still, who may talk, and what a single process does; with several, tests/reliability has the whole."""

import json
import socket
import time
from contextlib import suppress

import pytest
from stop_at import StopAt

from ppcls.engine.callbacks import Callback
from ppcls.engine.peer_link import MAX_LINE_BYTES, Line, Link
from ppcls.engine.stall import Process, Report, culprits, stands_still
from ppcls.utils import dist, pulse
from ppcls.utils.errors import PeerError

HERE = Process("here", 1, "pid:[1]")
ELSEWHERE = Process("elsewhere", 2, "pid:[1]")


def test_nothing_moves_only_when_no_process_makes_progress():
    assert stands_still({0: Report(11, 10), 1: Report(11, 10)}, 4)
    assert not stands_still({0: Report(11, 10), 1: Report(9, 10)}, 4)
    assert not stands_still({0: Report(99, 0)}, 4)  # no limit


def test_seconds_without_a_word_count_as_without_progress():
    assert stands_still({0: Report(11, 10), 1: Report(2, 10, silent=9)}, 4)
    assert not stands_still({0: Report(11, 10), 1: Report(0, 100)}, 4)  # it may take longer, and says so
    assert stands_still({0: Report(11, 10), 1: Report(0, 100, silent=11)}, 4)  # it said so long ago


@pytest.mark.parametrize(
    ("reports", "told"),
    [
        (
            {0: Report(9, 9, "epoch 1, batch 2", "a.py:1 in f", True), 1: Report(9, 9, "epoch 1, batch 1", silent=9)},
            "process 1 (pid 2, on elsewhere) does not answer, last heard from at epoch 1, batch 1; "
            "the others are at epoch 1, batch 2",
        ),
        (
            {0: Report(9, 9, "epoch 1, batch 2", "a.py:1 in f", True), 1: Report(silent=9)},
            "process 1 (pid 2, on elsewhere) does not answer; the others are at epoch 1, batch 2",
        ),
        (
            {0: Report(9, 9, "epoch 1, batch 2", "a.py:1 in f", False), 1: Report(9, 9, "", "b.py:1 in g", True)},
            "process 0 stands still at epoch 1, batch 2, a.py:1 in f",
        ),
        (
            {0: Report(9, 9, "", "a.py:1 in f", True), 1: Report(9, 9, "", "b.py:1 in g", True)},
            "process 0 waits at a.py:1 in f; process 1 waits at b.py:1 in g",
        ),
    ],
)
def test_the_one_that_does_not_wait_is_named(reports, told):
    text = culprits(reports, {0: HERE, 1: ELSEWHERE}, HERE, 4, 9)
    assert text == f"{told}; none of 2 processes has made progress for 9 s"


def test_of_many_only_a_few_are_named():
    reports = {rank: Report(9, 9, silent=9 if rank else 0) for rank in range(300)}
    text = culprits(reports, dict.fromkeys(range(300), ELSEWHERE), HERE, 4, 9)
    assert text.count("does not answer") == 4
    assert "; and 295 more; none of 300 processes" in text


def pair():
    return map(Line, socket.socketpair())


def test_what_the_other_side_does_not_take_waits_without_waiting_here():
    one, other = pair()
    for number in range(5000):
        one.send({"number": number, "text": "x" * 100})
    assert one.is_behind
    found = []
    while one.is_behind or not found or found[-1]["number"] != 4999:
        messages, is_open = other.receive()
        assert is_open
        found += messages
        one.flush()
    assert [message["number"] for message in found] == list(range(5000))
    one.finish()
    other.finish()


@pytest.mark.parametrize(
    "words", [b"GET / HTTP/1.1\r\n", b"\xff\n", b"[" * 60000 + b"\n", b"x" * (MAX_LINE_BYTES + 1), b""]
)
def test_who_does_not_speak_like_a_process_of_the_run_is_hung_up_on(words):
    one, other = pair()
    one.socket.setblocking(True)
    one.socket.sendall(words)
    one.finish()
    found, is_open = other.receive()
    assert (found, is_open) == ([], False)
    other.finish()


def test_who_does_not_know_the_token_is_hung_up_on(monkeypatch):
    monkeypatch.setattr(dist, "main_host", lambda: "127.0.0.1")
    link = Link()
    address = link._listener.getsockname()
    for hello in ({"rank": 1, "token": "guess"}, {"rank": 1}, {"rank": "1", "token": link._token}):
        with socket.create_connection(address, 20) as stranger:
            stranger.sendall(json.dumps(hello).encode() + b"\n" + b'{"stalled": "by a stranger"}\n')
            while not link.lines:
                assert list(link.messages(1)) == []
                stranger.settimeout(0.01)
                with suppress(socket.timeout):
                    if not stranger.recv(1):
                        break
            assert not link.lines
    with socket.create_connection(address, 20) as friend:
        friend.sendall(json.dumps({"rank": 1, "token": link._token}).encode() + b"\n" + b'{"a": 1}\n')
        found = []
        while not found:
            found = list(link.messages(20))
    assert found == [(1, {"a": 1})]
    assert list(link.messages(20)) == [(1, None)]
    link.close()


class Pause(Callback):
    """Holds a training up at its third batch until a file is there, and has a word in it."""

    def __init__(self, path, word):
        self.path = path
        self.word = word

    def on_step_end(self, state, output):
        deadline = time.monotonic() + 60
        while (state.epoch, state.batch) == (1, 3) and not (self.path.exists() and self.word in self.path.read_text()):
            assert time.monotonic() < deadline, self.path
            time.sleep(0.05)


@pytest.mark.promise("F26")
def test_a_single_process_that_stands_still_is_warned_about_and_goes_on(train, tmp_path):
    stacks = tmp_path / "run" / "stalled" / "rank_0.txt"
    pause = Pause(stacks, "in on_step_end")
    output = train("run", "Global.stall_timeout=1", "Global.epochs=1", callbacks=[pause])
    (warning,) = [line for line in (output / "train.log").read_text().splitlines() if "no progress" in line]
    assert "no progress for 1 s; it is at epoch 1, batch 3, test_peers.py:" in warning
    assert warning.endswith(f"; the stacks are in {stacks.parent}")
    assert (output / "epoch_1").is_dir()


def test_images_read_in_workers_are_progress(train):
    before = pulse.beats(), pulse.batches()
    train("run", "DataLoader.Train.loader.num_workers=1", "Global.eval_during_train=false", callbacks=[StopAt(1, 4)])
    beats, batches = pulse.beats() - before[0], pulse.batches() - before[1]
    assert batches == 3  # the fourth was the last, and nobody asked for another
    assert beats >= batches + 4 * 8 - 4  # two processes that beat at once may count as one


@pytest.mark.parametrize("kind", [RuntimeError, SystemError])
def test_processes_that_never_come_are_one_line(monkeypatch, kind):
    def meet(rank):
        raise kind("(Fatal) _timeout:900\n elapsed:901 (at tcp_store.cc:433)")

    monkeypatch.setattr(dist, "world_size", lambda: 2)
    monkeypatch.setattr(dist, "meet", meet)
    with pytest.raises(PeerError) as refused:
        dist.connect()
    assert str(refused.value).startswith("process 0 cannot reach the others: (Fatal) _timeout:900 elapsed:901")
    assert "\n" not in str(refused.value)
