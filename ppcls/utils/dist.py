# SPDX-License-Identifier: Apache-2.0
"""What the processes of one run do together; with one process, all of it is trivial."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import paddle

from ppcls.utils.errors import PeerError, PpclsError
from ppcls.utils.meeting import meet


def rank() -> int:
    """The number of this process, from 0."""
    return paddle.distributed.get_rank()


def world_size() -> int:
    """How many processes the launcher started."""
    return paddle.distributed.get_world_size()


def processes_here() -> int:
    """How many of them run on this machine."""
    return int(os.environ.get("PADDLE_LOCAL_SIZE") or world_size())


def is_main() -> bool:
    """Whether this is the process that writes files."""
    return rank() == 0


def main_host() -> str:
    """The address by which the machine of the first process is reached."""
    ends = (os.environ.get(name) for name in ("MASTER_ADDR", "PADDLE_MASTER", "PADDLE_TRAINER_ENDPOINTS"))
    return next((end for end in ends if end), "127.0.0.1").split(",")[0].rpartition("://")[2].partition(":")[0]


def connect(timeout: float | None = None) -> None:
    """Join the other processes, if there are any.

    Args:
        timeout: seconds that one of them may keep the others waiting in a collective operation, where Paddle looks
            at that; ``PADDLE_PG_TIMEOUT`` in the environment says otherwise. None: as Paddle has it.

    Raises:
        PeerError: they cannot reach each other.
    """
    if world_size() > 1:
        if timeout is not None:
            os.environ.setdefault("PADDLE_PG_TIMEOUT", str(int(timeout * 1000)))
        try:
            meet(rank())
            paddle.distributed.init_parallel_env()
        except (RuntimeError, SystemError, ValueError) as error:
            # SystemError: somebody has not come for 900 s (Paddle 3.3.1).
            # ValueError: a signal, at which Paddle's reading from a socket fails; its handler raises in this line.
            time.sleep(0)
            raise PeerError(
                f"process {rank()} cannot reach the others: {' '.join(str(error).split())[-200:]}; between machines, "
                "give each launcher --host with an address that the others reach, and name the network in "
                "GLOO_SOCKET_IFNAME (CPU) or NCCL_SOCKET_IFNAME (GPU), such as eth0"
            ) from error


def sum_over_ranks(array: np.ndarray) -> np.ndarray:
    """The element-wise sum of the same array (int64 or float64) of every process."""
    if world_size() == 1:
        return array
    tensor = paddle.to_tensor(array)
    paddle.distributed.all_reduce(tensor)
    return tensor.numpy()


def gathered(value: Any) -> list[Any]:
    """The same small value (numbers, text, lists) of every process, in the order of ranks."""
    if world_size() == 1:
        return [value]
    values: list[Any] = []
    paddle.distributed.all_gather_object(values, value)
    return values


@contextmanager
def together() -> Iterator[None]:
    """Run a block in every process; when it fails in one it fails in all, and none is left waiting for another.

    The block itself must not wait for other processes.

    Raises:
        PeerError: another process could not do it; says which, and why.
    """
    failure: PpclsError | OSError | None = None
    try:
        yield
    except (PpclsError, OSError) as error:
        failure = error
    failures = gathered(None if failure is None else str(failure))
    if failure is not None:
        failure.is_shared = True
        raise failure
    for number, text in enumerate(failures):
        if text is not None:
            raise PeerError(f"process {number}: {text}")


def broadcast_from_main(tensors: Iterable[paddle.Tensor]) -> None:
    """Overwrite the tensors of every process with those of the first, in place."""
    if world_size() > 1:
        for tensor in tensors:
            paddle.distributed.broadcast(tensor, src=0)
