# SPDX-License-Identifier: Apache-2.0
"""Where the main thread of this process is, seen from another thread."""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from ppcls.utils import dist
from ppcls.utils.logger import logger

_LIBRARIES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}", os.path.dirname(os.__file__) + os.sep)
_PADDLE_DISTRIBUTED = os.path.join("paddle", "distributed", "")


def main_thread_place() -> tuple[str, bool]:
    """Return the line that the main thread is at, outside of libraries, and whether it waits for other processes."""
    innermost = frame = sys._current_frames().get(threading.main_thread().ident or 0)
    waits = False
    while frame is not None and _is_library(frame):
        waits = waits or _PADDLE_DISTRIBUTED in frame.f_code.co_filename or frame.f_code.co_name == "backward"
        frame = frame.f_back
    if frame is None:
        frame = innermost
    if frame is None:
        return "", False
    code = frame.f_code
    waits = waits or code.co_filename == dist.__file__
    return f"{os.path.basename(code.co_filename)}:{frame.f_lineno} in {code.co_name}", waits


def _is_library(frame: FrameType) -> bool:
    return any(part in frame.f_code.co_filename for part in _LIBRARIES)


def write_stacks(folder: Path, head: str) -> None:
    """Append the stacks of all threads to ``rank_N.txt``; to stderr if that cannot be written."""
    when = time.strftime("%Y/%m/%d %H:%M:%S")
    head = f"[{when}] process {dist.rank()} (pid {os.getpid()} on {socket.gethostname()}): {head}\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / f"rank_{dist.rank()}.txt", "a", encoding="utf-8") as file:
            file.write(head)
            file.flush()
            faulthandler.dump_traceback(file)
            file.write("\n")
    except OSError as error:
        logger.warning("%s: the stacks cannot be written (%s)", error.filename, error.strerror)
        sys.stderr.write(head)
        faulthandler.dump_traceback(sys.__stderr__ or 2)


def dump_later(seconds: float) -> None:
    """Dump all stacks to stderr after so long, unless called again before: also while no thread of Python can run."""
    stderr = sys.__stderr__
    if stderr is not None:
        faulthandler.dump_traceback_later(seconds, file=stderr)


def dump_never() -> None:
    """Take `dump_later` back."""
    faulthandler.cancel_dump_traceback_later()
