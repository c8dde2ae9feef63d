# SPDX-License-Identifier: Apache-2.0
"""Work that is done beside the training, one piece at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """Does one piece of work at a time in a thread of its own, and keeps what it raised for who waits.

    The thread does not keep the process from ending: what it had not finished then is left as after a kill.
    """

    def __init__(self) -> None:
        self._is_done = threading.Event()
        self._is_done.set()
        self._error: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin; what was begun before has to have been waited for."""
        assert self._is_done.is_set() and self._error is None
        self._is_done.clear()
        threading.Thread(target=self._do, args=(work,), name="background", daemon=True).start()

    def wait(self) -> BaseException | None:
        """Wait until the work is done; give what it raised, once."""
        # Not the thread's join: a signal has to be able to interrupt it in every version of Python.
        self._is_done.wait()
        error, self._error = self._error, None
        return error

    @property
    def has_failed(self) -> bool:
        """Whether the work is done and has raised what nobody has waited for yet."""
        return self._is_done.is_set() and self._error is not None

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 (who waits decides what becomes of it)
            self._error = error
        finally:
            self._is_done.set()
