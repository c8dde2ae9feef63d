# SPDX-License-Identifier: Apache-2.0
"""A script for launchers: ``tools/train.py`` as forks of one process that has imported Paddle, see ``forked.py``.

A launcher starts this file instead of ``tools/train.py``. It asks the server, lets the fork print where it prints
itself, passes signals on, and ends as the fork ends.
"""

import json
import os
import select
import signal
import socket
import sys
import threading
from contextlib import suppress


class ForkedRanks:
    """The server's other side; a context manager. The scripts find it by ``environment``.

    Args:
        trainings: forks trainings.
        folder: for the address.
    """

    script = __file__

    def __init__(self, trainings, folder):
        self.trainings = trainings
        self.environment = {"TOY_RANKS": str(folder / "ranks")}
        self.pids = []

    def __enter__(self):
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.environment["TOY_RANKS"])
        self._listener.listen()
        self._threads = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()
        return self

    def __exit__(self, *error):
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(self.environment["TOY_RANKS"])
        self._accepting.join()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self):
        while True:
            client, _ = self._listener.accept()
            request = client.makefile().readline()
            if not request:
                client.close()
                return
            self._threads.append(threading.Thread(target=self._serve, args=(client, json.loads(request))))
            self._threads[-1].start()

    def _serve(self, client, request):
        pid = self.trainings.ask(request)
        self.pids.append(pid)
        fork = os.pidfd_open(pid)
        client.sendall(f"{pid}\n".encode())
        ready, _, _ = select.select([client, fork], [], [])
        if fork not in ready:  # the client has been killed, and stands for the fork
            signal.pidfd_send_signal(fork, signal.SIGKILL)
            select.select([fork], [], [])
        os.close(fork)
        code = self.trainings.ask({"reap": pid})
        with suppress(OSError):
            client.sendall(f"{code}\n".encode())
        client.close()


def main():
    """Be a process of ``tools/train.py``, as far as a launcher can tell."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(os.environ["TOY_RANKS"])
        names = [name for name in os.environ if name.startswith(("PADDLE_", "PPCLS_", "TOY_", "FLAGS_"))]
        request = {
            "tool": "train",
            "arguments": sys.argv[1:],
            "log": f"/proc/{os.getpid()}/fd/2",
            "environment": {"TOY_LAUNCHER": str(os.getppid()), **{name: os.environ[name] for name in names}},
        }
        server.sendall(json.dumps(request).encode() + b"\n")
        answers = server.makefile()
        pid = int(answers.readline())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGABRT):
            signal.signal(number, lambda number, frame: os.kill(pid, number))
        code = int(answers.readline())
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    main()
