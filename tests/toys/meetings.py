# SPDX-License-Identifier: Apache-2.0
"""Jobs of two processes that are given one and the same port to meet at, which another program may have.

The argument: a folder for the answers, ``<case>_<job><rank>.json``: the jobs of all that the process met, or the
error, and the exit code that it stands for.
"""

import json
import multiprocessing.connection
import os
import socket
import sys
import time
from pathlib import Path

import paddle  # noqa: F401  (before the processes part)
from group import environment_of, free_ports

from ppcls.utils import dist
from ppcls.utils.errors import PpclsError

FOLDER = Path(sys.argv[1])
LONG_SECONDS = 120


def come(case, job, environment, end):
    os.environ.update(environment)
    try:
        dist.connect()
        told = dist.gathered(job)
    except PpclsError as error:
        told = [str(error), error.exit_code]
    (FOLDER / f"{case}_{job}{dist.rank()}.json").write_text(json.dumps(told))
    end.wait(LONG_SECONDS)  # the one whom another may meet by mistake is still there


def start(case, job, ports, end):
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=come, args=(case, job, environment_of(rank, 2, ports), end), daemon=True)
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    return processes


def wait_for(*names):
    end = time.monotonic() + LONG_SECONDS
    while not all((FOLDER / f"{name}.json").exists() for name in names):
        if time.monotonic() > end:
            sys.exit(f"nothing came of {', '.join(names)}")
        time.sleep(0.05)


for case in ("at once", "later", "taken"):
    common, *ports = free_ports(5)
    end = multiprocessing.get_context("fork").Event()
    if case == "taken":
        with socket.socket() as other:
            other.bind(("127.0.0.1", common))
            other.listen()
            processes = start(case, "a", [common, *ports[:2]], end)
            wait_for("taken_a0")  # the launcher would now end the other, which waits for an answer
    else:
        processes = start(case, "a", [common, *ports[:2]], end)
        if case == "later":
            wait_for("later_a0", "later_a1")
        processes += start(case, "b", [common, *ports[2:]], end)
        wait_for(*(f"{case}_{job}{rank}" for job in "ab" for rank in range(2)))
    end.set()
    for process in processes:
        process.kill()
