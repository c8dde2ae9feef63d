# SPDX-License-Identifier: Apache-2.0
"""Named in ``Global.imports``: a training that Ctrl-C reaches, and that waits where the test says.

``WAIT_AT`` is ``EPOCH,BATCH``: before it trains on that batch each process writes its id to ``WAIT_IN/waits_RANK``,
and waits for the file ``WAIT_IN/go``; with ``HANG`` it computes for ever, in C, where no handler of Python runs.
Or ``evaluation``: before the second batch of an evaluation.
"""

import ctypes
import os
import signal
import time
from pathlib import Path

from ppcls.engine.trainer import Trainer
from ppcls.metric import CombinedMetric

# What is started in the background has it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)


def hang():
    mutex = ctypes.create_string_buffer(64)
    lock = ctypes.CDLL(None).pthread_mutex_lock
    lock(mutex)
    lock(mutex)


def wait():
    folder, rank = Path(os.environ["WAIT_IN"]), os.environ.get("PADDLE_TRAINER_ID", "0")
    writing = folder / f"writing_{rank}"
    writing.write_text(str(os.getpid()))
    writing.rename(folder / f"waits_{rank}")
    if "HANG" in os.environ:
        hang()
    while not (folder / "go").exists():
        time.sleep(0.01)


if "WAIT_AT" in os.environ:
    step, update = Trainer.step, CombinedMetric.update

    def step_or_wait(self, batch, state):
        if os.environ["WAIT_AT"] == f"{state.epoch},{state.batch}":
            wait()
        return step(self, batch, state)

    def update_or_wait(self, logits, labels):
        update(self, logits, labels)
        if os.environ["WAIT_AT"] == "evaluation":
            wait()

    Trainer.step, CombinedMetric.update = step_or_wait, update_or_wait
