# SPDX-License-Identifier: Apache-2.0
"""What signals mean to a training: to end, or to save, at the next update, where nothing is lost."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

from ppcls.data.loader import Batch, Loader
from ppcls.engine.agreement import Agreement
from ppcls.engine.callbacks import Callback, EvaluationLeft
from ppcls.engine.peers import SUPERVISED
from ppcls.utils import dist
from ppcls.utils.errors import Stopped

if TYPE_CHECKING:
    from ppcls.engine.trainer import StepOutput, TrainState

STOP = "stop: a signal"
SAVE = "save: a signal"
TO_STOP = (signal.SIGTERM, signal.SIGINT)
TO_SAVE = tuple(getattr(signal, name) for name in ("SIGUSR1",) if hasattr(signal, name))  # Windows has none
SAME_SECONDS = 0.1
"""Signals so close together are one: a scheduler may send it to a process and again through its parent."""
SAME_SECONDS_LAUNCHED = 5.0
"""The same under Paddle's launcher, which sends SIGTERM three times, 0.2 s apart (3.3.1), and means it once."""


class Signals(Callback):
    """Obeys SIGTERM, SIGINT (both: save and end) and SIGUSR1 (save and go on); a context manager around a training.

    Handlers only note what they are asked. All processes of a run act on it together, after the update that is under
    way. A process that runs alone does not wait for images before it ends, and evaluation is left without its end: the
    checkpoint says that it is still to be done. Before the first epoch nothing can be lost, and a signal ends the
    training where it is, as `Stopped`.

    A second signal to end is obeyed at once, by a thread: the main thread may be in a long computation, and Python's
    handlers wait for it. What is published is whole at any time, so that harms nothing.

    SIGTERM and SIGINT stay ignored where they are (SIGINT is, in the background). Outside of the main thread nothing is
    handled.

    Args:
        agreement: how the processes act together.
        batches_per_update: batches whose gradients make one update.

    Attributes:
        number: the first signal that asked this process to end, if one did.
        is_stopping: whether all processes have agreed to end.
    """

    def __init__(self, agreement: Agreement, batches_per_update: int = 1) -> None:
        self.agreement = agreement
        self.batches_per_update = batches_per_update
        self.number: int | None = None
        self.is_stopping = False
        self._num_asked = self._num_answered = self._num_saved = 0
        self._is_training = self._is_ending = self._may_leave = False
        self._step = 0
        self._former: dict[int, signal.Handlers | signal._HANDLER] = {}
        self._pid = os.getpid()
        agreement.ask(STOP, lambda: self.number is not None)
        agreement.ask(SAVE, self._wants_save)

    def __enter__(self) -> Signals:
        """Take the signals over."""
        if threading.current_thread() is not threading.main_thread():
            return self
        heard, self._told = socket.socketpair()
        self._told.setblocking(False)
        self._former_wakeup = signal.set_wakeup_fd(self._told.fileno(), warn_on_full_buffer=False)
        self._listener = threading.Thread(target=self._listen, args=(heard,), name="signals", daemon=True)
        self._listener.start()
        for numbers, handler in ((TO_STOP, self._on_stop), (TO_SAVE, self._on_save)):
            for number in numbers:
                if number in TO_SAVE or signal.getsignal(number) != signal.SIG_IGN:
                    self._former[number] = signal.signal(number, handler) or signal.SIG_DFL
                    # Where C reads, as an image from a slow disk, a signal must not be an error.
                    signal.siginterrupt(number, False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the signals back."""
        if isinstance(error, Stopped) and self.is_stopping:
            # A launcher ends all processes as soon as one has ended: none goes before the last one is ready.
            dist.gathered(None)
        if threading.current_thread() is not threading.main_thread():
            return
        for number, handler in self._former.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._former_wakeup)
        self._told.close()
        self._listener.join()

    @property
    def is_save_wanted(self) -> bool:
        """Whether, when the processes last agreed, one was asked for a checkpoint."""
        return SAVE in self.agreement

    def on_train_start(self, state: TrainState) -> None:
        """From here on there is something to save."""
        self._step = state.step
        self._is_training = True

    def on_rollback(self, state: TrainState) -> None:
        """The next update is one after this state."""
        self._step = state.step

    def on_step_end(self, state: TrainState, output: StepOutput | None) -> None:
        """End after an update at which all have agreed to."""
        is_update, self._step = state.step != self._step, state.step
        if is_update:
            self._obey(state)

    def on_epoch_end(self, state: TrainState) -> None:
        """End between two epochs."""
        self.agreement.settle()
        self._obey(state)

    def on_train_end(self, state: TrainState) -> None:
        """There is nothing left to ask for."""
        self._is_ending = True

    def until_stop(self, batches: Iterator[Batch], state: TrainState) -> Iterator[Batch]:
        """Pass batches on; end, and say so in ``state``, when a signal comes while the next one is waited for."""
        while (batch := self._next(batches, state.batch % self.batches_per_update == 0)) is not None:
            yield batch
        if self.is_stopping:
            state.stop = True

    def stopped(self) -> Stopped:
        """Why the training has ended; in a process that was not told itself, as the launcher would have told it."""
        return Stopped(self.number or signal.SIGTERM)

    def _obey(self, state: TrainState) -> None:
        if self.is_save_wanted:
            self._num_saved = self._num_answered
        if STOP in self.agreement:
            self.is_stopping = state.stop = True

    def _next(self, batches: Iterator[Batch], may_leave: bool = True) -> Batch | None:
        """The next batch; None when there is none, or when a process that runs alone is asked to end."""
        if not may_leave or dist.world_size() > 1:
            return next(batches, None)
        try:
            self._may_leave = True
            if self.number is not None:  # since the last update
                raise Stopped(self.number)
            batch = next(batches, None)
            self._may_leave = False
        except Stopped:
            self.is_stopping = True
            return None
        finally:
            self._may_leave = False
        return batch

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            _die(number)
        if not self._is_training:
            raise Stopped(number)
        self.number = self.number or number
        if self._may_leave:
            self._may_leave = False
            raise Stopped(number)

    def _on_save(self, number: int, frame: FrameType | None) -> None:
        self._num_asked += 1

    def _wants_save(self) -> bool:
        self._num_answered = self._num_asked
        return self._num_asked > self._num_saved

    def _listen(self, heard: socket.socket) -> None:
        """In a thread: the system's handler sends the number of each signal as it arrives."""
        by_paddle = "PADDLE_TRAINER_ID" in os.environ and SUPERVISED not in os.environ
        same_seconds = SAME_SECONDS_LAUNCHED if by_paddle else SAME_SECONDS
        first: float | None = None
        with heard:
            while told := heard.recv(1):
                number, now = told[0], time.monotonic()
                if number not in TO_STOP:
                    continue
                if first is None:
                    first = now
                    if self._is_training:
                        _say(number, "the run ends" if self._is_ending else "saving after this update, then ending")
                elif now - first > same_seconds:
                    _say(number, "given twice, ending at once", "")
                    os._exit(Stopped(number).exit_code)


class Watched:
    """A loader for evaluation: when the processes are asked to end, `EvaluationLeft` is raised in all of them.

    Each leaves off at its next batch when it is asked itself, and at the end of its share when only others are.
    """

    def __init__(self, loader: Loader, signals: Signals) -> None:
        self.loader = loader
        self.signals = signals

    @property
    def num_left_out(self) -> int:
        """As the loader has it."""
        return self.loader.num_left_out

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        signals, batches = self.signals, iter(self.loader)
        while signals.number is None and (batch := signals._next(batches)) is not None:
            yield batch
        signals.agreement.settle()
        if STOP in signals.agreement:
            raise EvaluationLeft


def _say(number: int, what: str, then: str = "; a second signal ends it at once") -> None:
    # Past Python's own streams, which the main thread may be writing to.
    with suppress(OSError):
        os.write(2, f"{signal.Signals(number).name}: {what}{then}\n".encode())


def _die(number: int) -> None:
    """End this process as the signal would have without a handler: it was forked, and the handler is its parent's."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
