# SPDX-License-Identifier: Apache-2.0
"""What a process that was forked to work for another one has to do at its start."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import wait


def begin_forked() -> None:
    """Leave Ctrl-C to the parent, and end with it.

    Ctrl-C reaches all processes of a terminal; the parent decides. One that is killed cannot end those it has
    forked, and they would wait for work for ever: they watch it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
