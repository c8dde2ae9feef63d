# SPDX-License-Identifier: Apache-2.0
"""Many clients in one thread, as light as Python allows: bytes are sent, answers are timed and handed on."""

import asyncio
import re
import time
from typing import NamedTuple

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: (\d+)")


class Reply(NamedTuple):
    status: int
    seconds: float
    body: bytes
    head: bytes


class Client(asyncio.Protocol):
    """One connection that is kept."""

    def __init__(self):
        self.data, self.waiter = b"", None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.data += data
        head, found, body = self.data.partition(b"\r\n\r\n")
        if found and len(body) >= int(_LENGTH.search(head)[1]) and self.waiter and not self.waiter.done():
            self.data = b""
            self.waiter.set_result((int(head[9:12]), body, head))

    def connection_lost(self, error):
        if self.waiter and not self.waiter.done():
            self.waiter.set_exception(ConnectionResetError("the server has closed the connection"))

    async def ask(self, request):
        started = time.perf_counter()
        self.waiter = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        status, body, head = await self.waiter
        return Reply(status, time.perf_counter() - started, body, head)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.transport.close()


async def connect(port):
    _, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", port)
    return client


async def closed_loop(port, num_clients, requests, on_reply, pause=0.0):
    """Each client asks again when it is answered (or a moment after it was refused), until the requests run out.

    Args:
        port: of the server.
        num_clients: at the same time.
        requests: an iterator of (key, bytes), shared by all.
        on_reply: called with the key and the reply.
        pause: seconds that a client waits after a refusal.
    """

    async def life():
        async with await connect(port) as client:
            for key, request in requests:
                reply = await client.ask(request)
                on_reply(key, reply)
                if reply.status == 503:
                    await asyncio.sleep(pause)

    await asyncio.gather(*(life() for _ in range(num_clients)))


async def open_loop(port, rate, seconds, max_clients, request_of, on_reply):
    """Requests come at a rate, whether or not those before are answered; returns how many were sent.

    One that finds all connections busy is not sent: a bounded number of clients is all that one thread can play.
    """
    idle, tasks, loop, num_sent = [], set(), asyncio.get_running_loop(), 0
    all_clients = []

    async def one(number):
        if idle:
            client = idle.pop()
        else:
            client = await connect(port)
            all_clients.append(client)
        key, request = request_of(number)
        on_reply(key, await client.ask(request))
        idle.append(client)

    started = loop.time()
    while (passed := loop.time() - started) < seconds:
        while num_sent < passed * rate and len(tasks) < max_clients:
            task = loop.create_task(one(num_sent))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            num_sent += 1
        await asyncio.sleep(0.001)
    if tasks:
        await asyncio.gather(*tasks)
    for client in all_clients:
        client.transport.close()
    return num_sent


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]
