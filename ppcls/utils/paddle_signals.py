# SPDX-License-Identifier: Apache-2.0
"""What Paddle takes over when it is imported, and is not to have."""

from __future__ import annotations

import faulthandler
import signal
import sys
import threading

import paddle


def take_from_paddle() -> None:
    """Give SIGTERM back to whom it had before Paddle was imported, and crashes to Python, which shows where they were.

    Paddle 3.3.1 asks for memory in its handlers: a process that is in the middle of that, or forks, waits for ever.
    """
    paddle.disable_signal_handler()
    if threading.current_thread() is threading.main_thread() and callable(handler := signal.getsignal(signal.SIGTERM)):
        signal.signal(signal.SIGTERM, handler)  # Python does not know that it was taken away
    if sys.__stderr__ is not None:
        faulthandler.disable()
        faulthandler.enable(sys.__stderr__)
