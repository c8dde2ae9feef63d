# SPDX-License-Identifier: Apache-2.0
"""Where the processes of a run meet: a port of the first one's machine, which nobody else may have."""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import sys
import time

from paddle.base import core

from ppcls.utils.errors import PeerError

_KEY = "ppcls/job"
_ADVICE = "start again, and the launcher chooses another port, or give each job ports of its own"
WAIT_SECONDS = 900.0
"""How long the first process may take to start after another one: as Paddle has it, for machines that take turns."""
POLL_SECONDS = 0.05
_claims: list[socket.socket] = []


@functools.cache
def meet(rank: int) -> None:
    """Wait at the meeting port for the processes of this run, and for no others.

    Two jobs that are given one port, or that find it free at the same moment, would otherwise train with one
    another: Paddle takes whoever comes with the right number.

    Raises:
        PeerError: another program has the port, another job meets there, or nobody does.
    """
    endpoints = os.environ.get("PADDLE_TRAINER_ENDPOINTS", "")
    place = os.environ.get("PADDLE_MASTER") or endpoints.partition(",")[0]
    if rank == 0:
        _take(int(place.rpartition(":")[2]))
    else:
        _wait_for(place, rank)
    # The launcher chooses the endpoints for this job and tells them to each of its processes.
    job = hashlib.sha256(endpoints.encode()).hexdigest()
    store = core.create_or_get_global_tcp_store()  # what Paddle meets in later
    if rank == 0:
        store.set(_KEY, job.encode())
    elif store.get(_KEY) != job.encode():
        raise PeerError(f"process {rank}: another job meets at {place}; {_ADVICE}")


def _wait_for(place: str, rank: int) -> None:
    """Wait until the first process listens; Paddle 3.3.1 looks every 3 seconds only, and lets no signal through."""
    host, _, port = place.rpartition(":")
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            socket.create_connection((host, int(port)), WAIT_SECONDS).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                reason = error.strerror or error
                raise PeerError(
                    f"process {rank}: process 0 does not answer at {place} ({reason}); see what it says"
                ) from error
        time.sleep(POLL_SECONDS)


def _take(port: int) -> None:
    """Claim the port until this process ends, as Paddle 3.3.1 is aborted by one that is taken."""
    try:
        if sys.platform == "linux":
            # Unlike the port, this name is not free again between looking and listening. It ends with the process,
            # and is as local as the port is: a container with a network of its own has names of its own.
            claim = socket.socket(socket.AF_UNIX)
            _claims.append(claim)
            claim.bind(f"\0ppcls-meeting-{port}")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", port))
    except OSError as error:
        raise PeerError(f"process 0: port {port}, where the others would meet it, is taken; {_ADVICE}") from error
