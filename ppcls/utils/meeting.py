# SPDX-License-Identifier: Apache-2.0
"""Where the processes of a run meet: a port of the first one's machine, which nobody else may have."""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import sys

from paddle.base import core

from ppcls.utils.errors import PeerError

_KEY = "ppcls/job"
_ADVICE = "start again, and the launcher chooses another port, or give each job ports of its own"
_claims: list[socket.socket] = []


@functools.cache
def meet(rank: int) -> None:
    """Wait at the meeting port for the processes of this run, and for no others.

    Two jobs that are given one port, or that find it free at the same moment, would otherwise train with one
    another: Paddle takes whoever comes with the right number.

    Raises:
        PeerError: another program has the port, or another job meets there.
    """
    endpoints = os.environ.get("PADDLE_TRAINER_ENDPOINTS", "")
    place = os.environ.get("PADDLE_MASTER") or endpoints.partition(",")[0]
    if rank == 0:
        _take(int(place.rpartition(":")[2]))
    # The launcher chooses the endpoints for this job and tells them to each of its processes.
    job = hashlib.sha256(endpoints.encode()).hexdigest()
    store = core.create_or_get_global_tcp_store()  # what Paddle meets in later
    if rank == 0:
        store.set(_KEY, job.encode())
    elif store.get(_KEY) != job.encode():
        raise PeerError(f"process {rank}: another job meets at {place}; {_ADVICE}")


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
