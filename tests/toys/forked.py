# SPDX-License-Identifier: Apache-2.0
"""Real processes of ``tools/train.py``, or of another tool, without the seconds that each takes to import Paddle.

A server imports everything that a training needs, which starts no thread, and runs no operation. Each training is a
fork of it that goes on as ``python tools/train.py ...`` would, in a session of its own.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOYS = Path(__file__).resolve().parent
SECONDS = 300
"""That a training may take before it counts as hung."""


class Trainings:
    """Starts trainings; a context manager, which kills what is left at the end. Threads may share it."""

    def __enter__(self):
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("PADDLE_", "CUDA_"))}
        self._lock = threading.Lock()
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            cwd=ROOT,
            env={**clean, "PYTHONPATH": f"{ROOT}{os.pathsep}{TOYS}", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.ask({}) == "ready"
        return self

    def __exit__(self, *error):
        self._server.stdin.close()
        self._server.wait(SECONDS)
        self._server.stdout.close()

    def start(self, arguments, log, ranks=1, own=None, tool="train", **environment):
        """Start a training; what it prints is appended to ``log``.

        Args:
            arguments: of the tool.
            log: a file.
            ranks: processes, as `paddle.distributed.launch` starts them.
            own: environment of single ranks, by their number.
            tool: a file of ``tools``, without its ending.
            environment: of all.
        """
        endpoints = [f"127.0.0.1:{port}" for port in free_ports(ranks)]
        pids = []
        for rank in range(ranks):
            # What `paddle.distributed.launch` gives the processes that it starts.
            group = {
                "PADDLE_MASTER": endpoints[0],
                "PADDLE_GLOBAL_SIZE": str(ranks),
                "PADDLE_LOCAL_SIZE": str(ranks),
                "PADDLE_GLOBAL_RANK": str(rank),
                "PADDLE_LOCAL_RANK": str(rank),
                "PADDLE_NNODES": "1",
                "PADDLE_CURRENT_ENDPOINT": endpoints[rank],
                "PADDLE_TRAINER_ID": str(rank),
                "PADDLE_TRAINERS_NUM": str(ranks),
                "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
                "PADDLE_DISTRI_BACKEND": "gloo",
            }
            given = {**(group if ranks > 1 else {}), **environment, **(own or {}).get(rank, {})}
            request = {"tool": tool, "arguments": list(map(str, arguments)), "log": str(log), "environment": given}
            pids.append(self.ask(request))
        return Training(pids, Path(log), lambda pid: self.ask({"reap": pid}))

    def run(self, arguments, log, ranks=1, tool="train", **environment):
        """Train to the end, which has to be a good one."""
        training = self.start(arguments, log, ranks, tool=tool, **environment)
        codes = training.wait()
        assert codes == [0] * ranks, training.told(codes)

    def ask(self, request):
        """Send the server a request and return its answer."""
        with self._lock:
            self._server.stdin.write(json.dumps(request) + "\n")
            self._server.stdin.flush()
            return json.loads(self._server.stdout.readline())


class Training:
    """Processes that train together, and how they ended.

    Args:
        pids: of the processes; none is reaped but by ``reap``.
        log: where they print to.
        reap: a process id to an exit code, of a process that has ended.
    """

    def __init__(self, pids, log, reap):
        self.pids = pids
        self.log = log
        self._reap = reap
        self._running = {pid: os.pidfd_open(pid) for pid in pids}
        self._codes = {}

    def wait(self, seconds=None):
        """How each process ended (its code, or minus the signal's number), or None if one still runs after that."""
        deadline = time.monotonic() + (SECONDS if seconds is None else seconds)
        while self._running:
            ready, _, _ = select.select([*self._running.values()], [], [], max(deadline - time.monotonic(), 0))
            if not ready and seconds is None:
                self.kill()
                raise AssertionError(f"hangs: {self.told('none')}")
            if not ready:
                return None
            for pid, descriptor in [*self._running.items()]:
                if descriptor in ready:
                    os.close(self._running.pop(pid))
                    self._codes[pid] = self._reap(pid)
        return [self._codes[pid] for pid in self.pids]

    def wait_for(self, rank):
        """Wait until one process has ended."""
        if self.pids[rank] in self._running:
            ready, _, _ = select.select([self._running[self.pids[rank]]], [], [], SECONDS)
            assert ready, f"hangs: {self.told('none')}"

    def kill(self, *ranks):
        """Kill these processes, or all of them, at once."""
        for pid in [self.pids[rank] for rank in ranks] or self.pids:
            with suppress(ProcessLookupError):
                if pid in self._running:
                    signal.pidfd_send_signal(self._running[pid], signal.SIGKILL)

    def told(self, codes):
        """What to say when it ended otherwise than it should."""
        return f"exit codes {codes}; {self.log}:\n{self.log.read_text()[-3000:]}"


def command(config, settings):
    """The arguments of ``tools/train.py`` for a file and changes to it."""
    return ["-c", config, *(word for setting in settings for word in ("-o", setting))]


def free_ports(number):
    """Ports that nobody listens on now."""
    probes = [socket.socket() for _ in range(number)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _serve():
    """Answer requests until there are no more; returns in a fork, with what it has to run."""
    from ppcls.config import load_config  # noqa: F401
    from ppcls.engine import Engine  # noqa: F401

    assert len(os.listdir("/proc/self/task")) == 1, "a thread would be missing in a fork"
    running = set()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        if not request:
            answer = "ready"
        elif "reap" in request:
            running.remove(request["reap"])
            answer = os.waitstatus_to_exitcode(os.waitpid(request["reap"], 0)[1])
        else:
            answer = os.fork()
            if not answer:
                answers.close()
                return request
            running.add(answer)
        print(json.dumps(answer), file=answers, flush=True)
    for pid in running:
        os.kill(pid, signal.SIGKILL)
    return None


def _train(request):
    import runpy

    os.setsid()
    with open(os.devnull) as nothing, open(request["log"], "a") as log:
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ.update(request["environment"])
    tool = f"tools/{request['tool']}.py"
    sys.argv = [tool, *request["arguments"]]
    sys.path[0] = str(ROOT / "tools")
    runpy.run_path(tool, run_name="__main__")


if __name__ == "__main__":
    request = _serve()
    if request is not None:
        _train(request)
