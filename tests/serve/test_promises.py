# SPDX-License-Identifier: Apache-2.0
"""Overload, hostile clients and long use, against a server in a process of its own."""

import asyncio
import itertools
import json
import os
import random
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import image_files
import load
import numpy as np
import pytest
import served

toy_bundle = pytest.importorskip("toy_bundle")
PICTURES = [toy_bundle.picture(color) for color in range(3)]
REQUESTS = [served.request_bytes(picture) for picture in PICTURES]
linux = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks into /proc")


class Process:
    """What a process uses, by /proc."""

    def __init__(self, pid):
        self.place = Path("/proc", str(pid))

    def rss(self):
        """In bytes."""
        return int(re.search(r"VmRSS:\s+(\d+) kB", (self.place / "status").read_text())[1]) * 1024

    def files(self):
        return len(os.listdir(self.place / "fd"))

    def threads(self):
        return len(os.listdir(self.place / "task"))

    def wait_for_files(self, number):
        """Wait until connections that were closed are closed there as well."""
        ends = time.monotonic() + served.PATIENCE
        while self.files() > number:
            assert time.monotonic() < ends, (self.files(), number)
            time.sleep(0.02)


def is_right(color, reply):
    return json.loads(reply.body)["results"][0]["label_names"][0] == toy_bundle.COLORS[color]


def in_turn(number=None):
    """The three requests again and again."""
    turns = itertools.cycle(range(3)) if number is None else (each % 3 for each in range(number))
    return ((color, REQUESTS[color]) for color in turns)


@linux
@pytest.mark.promise("F36")
def test_ten_times_the_load_is_refused_but_for_what_can_be_answered(slow_bundle, process, times, record_property):
    seconds, recovery = times(3, 60), 20
    server = process(
        "--max_queue", 2, "--max_images", 1, "--max_batch", 1, "--max_connections", 300, directory=slow_bundle
    )
    used = Process(server.process.pid)
    answered, refused, unloaded = [], [], []

    def note(color, reply):
        assert reply.status in (200, 503), reply
        if reply.status == 200:
            assert is_right(color, reply), reply
            answered.append(reply.seconds)
        else:
            assert b"Retry-After" in reply.head
            refused.append(reply.seconds)

    async def life():
        await load.closed_loop(server.port, 1, in_turn(20), note)
        unloaded.extend(answered)
        # The capacity is what clients get that always ask.
        answered.clear()
        started = time.monotonic()
        await load.closed_loop(server.port, 2, in_turn(40), note)
        capacity = len(answered) / (time.monotonic() - started)
        assert not refused
        answered.clear()
        before = used.rss()
        sent = await load.open_loop(
            server.port, 10 * capacity, seconds, 200, lambda number: (number % 3, REQUESTS[number % 3]), note
        )
        grown = used.rss() - before
        assert len(answered) + len(refused) == sent
        assert answered and refused
        told = {
            "capacity": round(capacity, 1),
            "sent over capacity": round(sent / seconds / capacity, 1),
            "p99 of refusals in ms": round(1000 * load.percentile(refused, 0.99), 1),
            "p99 of answers over unloaded": round(load.percentile(answered, 0.99) / load.percentile(unloaded, 0.99), 2),
            "MiB grown": round(grown / 2**20, 1),
        }
        print(told)
        for name, value in told.items():
            record_property(name, value)
        assert grown < 50e6
        assert load.percentile(refused, 0.5) < 1, "refusals come at once, also on a slow machine"
        # It has recovered when nobody is refused any more.
        refused.clear()
        await load.closed_loop(server.port, 2, in_turn(recovery), note)
        assert not refused

    asyncio.run(life())
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert server.log.read_text() == ""


def zoo():
    """Image files that are strange, damaged or made to harm."""
    rng = np.random.RandomState(0)
    picture = rng.randint(0, 256, [24, 20, 3]).astype(np.uint8)
    good = [image_files.encode(picture, kind) for kind in ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF")]
    yield from good
    yield from (image_files.jpeg_header(65000, 65000), image_files.bmp_header(2**30, 2**30))
    yield from (image_files.webp_header(form, 16383, 16383) for form in (b"VP8X", b"VP8L", b"VP8 "))
    yield image_files.gif_header((65535, 65535), (65535, 65535))
    yield image_files.png(60000, 60000, b"")
    yield image_files.png(2**31 - 1, 1, b"")
    yield b"\x89PNG\r\n\x1a\n" + b"\0" * 1000
    yield b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>"
    yield b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>"
    yield b"%!PS-Adobe-3.0\n(%pipe%id) (w) file"
    yield b"\0" * 5000
    chosen = random.Random(0)
    while True:
        data = bytearray(chosen.choice(good))
        for _ in range(chosen.randint(1, 8)):
            data[chosen.randrange(len(data))] = chosen.randrange(256)
        yield bytes(data[: chosen.choice([len(data), chosen.randrange(1, len(data))])])


def malformed_heads():
    """What is no request, or one that is to be read in two ways."""
    post = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
    yield from (b"\r\n\r\n", b"\0" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\xff\xfe\xfd\r\n\r\n")
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200)  # TLS
    yield b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    yield b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20000 + b"\r\n\r\n"
    yield b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: a\r\n" % number for number in range(5000)) + b"\r\n"
    yield b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n"
    yield b"GET /%2e%2e/%00 HTTP/1.1\r\nHost: x\r\n\r\n"
    yield b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n"
    yield b"GET http://example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n"
    yield b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    for length in (b"-1", b"1e3", b"0x10", b"", b"99999999999999999999999", b"5, 5", b"\xd9\xa3"):
        yield post + b"Content-Length: " + length + b"\r\n\r\nhello"
    yield post + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"
    yield post + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    yield post + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"
    for chunks in (b"zz\r\n", b"-1\r\nhello\r\n", b"5\r\nhelloXX\r\n", b"FFFFFFFFFFFFFFFFF\r\n", b"5;" + b"x" * 20000):
        yield post + b"Transfer-Encoding: chunked\r\n\r\n" + chunks
    yield post + f"Content-Length: {1 << 30}\r\n\r\n".encode() + b"x" * 1000
    yield post + f"Content-Length: {1 << 62}\r\nExpect: 100-continue\r\n\r\n".encode()
    for kind in (
        b"multipart/form-data",
        b'multipart/form-data; boundary="',
        b"multipart/form-data; boundary=\xff",
        b"multipart/form-data; boundary*=utf-8''%00",
        b"multipart/form-data; boundary*0=a; boundary*99999=b",
        b"multipart/mixed; boundary=a",
        b"multipart/",
        b"a" * 3000,
        b"\x00",
        b"application/json",
    ):
        yield post + b"Content-Type: " + kind + b"\r\nContent-Length: 19\r\n\r\n--a\r\n\r\nhello\r\n--a--"


def forms():
    """Forms that are damaged anywhere."""
    body, headers = served.form(("a.png", PICTURES[0]), ("b.png", PICTURES[1]))
    head = f"Content-Type: {headers['Content-Type']}\r\n"
    chosen = random.Random(1)
    names = [
        b'filename="',
        b"filename*=",
        b"filename*=utf-8''%ff",
        b"filename*0*=x''%",
        b'filename="\\',
        b"filename*1=a",
        b"=",
    ]
    for name in names:
        yield served.request_bytes(body.replace(b'filename="a.png"', name), head)
    while True:
        data = bytearray(body)
        for _ in range(chosen.randint(1, 6)):
            place = chosen.randrange(len(data))
            if chosen.random() < 0.5:
                data[place] = chosen.randrange(256)
            else:
                del data[place : place + chosen.randrange(1, 20)]
        yield served.request_bytes(bytes(data), head)


@linux
@pytest.mark.promise("F37")
def test_hostile_clients_are_refused_and_cost_nobody_an_answer(process, times, counted):
    number = times(900, 9000)
    server = process("--head_seconds", 2, "--body_seconds", 2, "--max_pixels", 1_000_000)
    used = Process(server.process.pid)
    served.ask(server.port, PICTURES[0])
    used.wait_for_files(files := used.files())
    threads = None
    chosen = random.Random(2)
    statuses = {}

    def note(response):
        status = response[9:12].decode("ascii")
        assert response == b"" or re.fullmatch(r"200|4\d\d|503", status), response[:500]
        statuses[status] = statuses.get(status, 0) + 1

    # Those that are slow wait together, while the others come.
    slow = [socket.create_connection(("127.0.0.1", server.port), timeout=served.PATIENCE) for _ in range(30)]
    for place, stream in enumerate(slow):
        stream.sendall(REQUESTS[0][: (0, 10, len(REQUESTS[0]) - 1)[place % 3]])
    asked = len(slow)
    sources = [
        (served.request_bytes(image) for image in zoo()),
        forms(),
        (REQUESTS[0][: chosen.randrange(1, len(REQUESTS[0]))] for _ in itertools.count()),
    ]
    with ThreadPoolExecutor(8) as pool:
        for response in pool.map(lambda head: served.send(server.port, head), malformed_heads()):
            note(response)
            asked += 1
    for turn in range(number - asked - 30):
        source = sources[turn % 3]
        note(served.send(server.port, next(source), shut=turn % 3 == 2 or chosen.random() < 0.3))
        if turn % 100 == 0:
            assert served.ask(server.port, PICTURES[turn % 3]).classes == [toy_bundle.COLORS[turn % 3]]
            threads = threads or used.threads()
    # Many requests at once through one connection, of a client that reads the first answer only.
    with served.connected(server.port) as stream:
        stream.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        note(served.read_response(stream))
    # Those that hang up in the middle of everything.
    for _ in range(29):
        with served.connected(server.port) as stream:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # closed by a reset
            stream.sendall(chosen.choice(REQUESTS)[: chosen.randrange(1, 300)])
    ends = [served.read_response(stream) for stream in slow]
    for stream in slow:
        stream.close()
    assert all(end[9:12] == b"408" for place, end in enumerate(ends) if place % 3), ends
    assert all(end == b"" for end in ends[::3])
    assert statuses.keys() >= {"200", "400", "404", "408", "413", "415", "422"}
    assert served.ask(server.port, PICTURES[2]).classes == ["blue"]
    used.wait_for_files(files)
    assert used.threads() <= threads
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert server.log.read_text() == ""
    counted(number)


@linux
@pytest.mark.promise("F39")
def test_memory_files_and_threads_do_not_grow_with_requests(process, times, counted, record_property):
    number = times(2400, 1_000_000)
    server = process("--reload_seconds", 0)
    used = Process(server.process.pid)

    def note(color, reply):
        assert reply.status == 200 and is_right(color, reply)

    asyncio.run(load.closed_loop(server.port, 8, in_turn(number // 4), note))
    time.sleep(0.1)
    before = used.rss(), used.files(), used.threads()
    for _ in range(3):
        asyncio.run(load.closed_loop(server.port, 8, in_turn(number // 4), note))
    used.wait_for_files(before[1])
    grown = used.rss() - before[0]
    record_property("MiB grown", round(grown / 2**20, 2))
    assert grown < 16 << 20
    assert used.threads() <= before[2]
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    counted(number)


@linux
@pytest.mark.promise("F39")
def test_memory_and_files_do_not_grow_with_reloads(bundle, process, times, counted):
    rounds = times(3, 50)
    server = process()
    used = Process(server.process.pid)

    def reload(total):
        server.signal(signal.SIGHUP)
        server.wait_for_lines("reloaded: the same bundle", total)
        assert server.ask(PICTURES[0]).classes == ["red"]

    for total in range(1, rounds + 1):
        reload(total)
    before = used.rss()
    used.wait_for_files(files := used.files())
    for total in range(rounds + 1, 4 * rounds + 1):
        reload(total)
    used.wait_for_files(files)
    assert used.rss() - before < 32 << 20
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    counted(4 * rounds)
