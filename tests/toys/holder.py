# SPDX-License-Identifier: Apache-2.0
"""A process that starts others, which hold directories as trainings do, and ends them; told what by its input.

``hold DIRECTORY``, ``hold_and_fork DIRECTORY`` (as a training with workers) and ``hold_and_start DIRECTORY`` (with
another program) answer with the process's number, ``kill NUMBER`` and ``release NUMBER`` with ``done``.
"""

import os
import signal
import subprocess
import sys

from ppcls.utils.lock import held


def holding(directory, pipe, how):
    released = []
    signal.signal(signal.SIGUSR1, lambda *_: released.append(True))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    with held(directory):
        if how == "hold_and_fork" and os.fork() == 0:
            os.write(pipe, b"+")
            signal.pause()
        if how == "hold_and_start":
            subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            os.write(pipe, b"+")
        if how == "hold":
            os.write(pipe, b"+")
        signal.sigwait({signal.SIGUSR1})


def main():
    for line in sys.stdin:
        word, _, argument = line.strip().partition(" ")
        if word in ("kill", "release"):
            os.kill(int(argument), signal.SIGKILL if word == "kill" else signal.SIGUSR1)
            os.waitpid(int(argument), 0)
            print("done", flush=True)
            continue
        ready, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            holding(argument, told, word)
            os._exit(0)
        os.close(told)
        assert os.read(ready, 1) == b"+"
        os.close(ready)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
