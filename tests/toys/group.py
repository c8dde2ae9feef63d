# SPDX-License-Identifier: Apache-2.0
"""A group of processes (gloo) forked from one that has imported Paddle, and has used nothing of it yet."""

import multiprocessing.connection
import os
import socket
import sys
from contextlib import ExitStack


def free_ports(number):
    """Ports that nobody listens on now, all different."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def environment_of(rank, size, ports):
    """What the launcher would tell the process ``rank``; ``ports`` are ``size`` + 1, the first for the meeting."""
    ends = [f"127.0.0.1:{port}" for port in ports[1:]]
    return {
        "PADDLE_TRAINER_ID": str(rank),
        "PADDLE_TRAINERS_NUM": str(size),
        "PADDLE_LOCAL_SIZE": str(size),
        "PADDLE_CURRENT_ENDPOINT": ends[rank],
        "PADDLE_TRAINER_ENDPOINTS": ",".join(ends),
        "PADDLE_MASTER": f"127.0.0.1:{ports[0]}",
        "PADDLE_DISTRI_BACKEND": "gloo",
    }


def _enter(environment, work):
    os.environ.update(environment)
    work()


def run_group(size, work):
    """Run ``work()`` in ``size`` processes of one group; ends this process with 1 if one of them fails."""
    ports = free_ports(size + 1)
    context = multiprocessing.get_context("fork")
    children = [
        context.Process(target=_enter, args=(environment_of(rank, size, ports), work), daemon=True)
        for rank in range(size)
    ]
    for child in children:
        child.start()
    # Once one has failed, the others wait for it in vain.
    while running := [child for child in children if child.exitcode is None]:
        multiprocessing.connection.wait([child.sentinel for child in running])
        if failed := [rank for rank, child in enumerate(children) if child.exitcode]:
            for child in children:
                child.kill()
            sys.exit(f"process {failed[0]} of a group of {size} failed")
