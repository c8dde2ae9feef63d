# SPDX-License-Identifier: Apache-2.0
"""Named in ``Global.imports``: a training writes down what it trains on, and is killed where the test says.

The environment says what to do:

* ``RECORD_TO``: a folder. Each process writes a file of its own there, ``stream-RANK-PID``, one line of JSON a batch:
  its place, ids and pixels of its samples as they came, a hash of what the model was given, and the loss.
* ``KILL_AT_PLACE``: ``EPOCH,BATCH``; killed before it trains on that batch, as soon as there is ``KILL_WHEN``, if
  that path is given.
* ``KILL_AT_EVENT``: a number; killed at the so-many-th time that it opens, makes, renames, removes, lists or syncs
  something below ``KILL_UNDER``. 0 only counts. What happened goes to ``events-RANK-PID``.
* ``KILL_AFTER_BYTES``: at that event it is not killed at once, but when a file gets longer than this.
"""

import hashlib
import json
import os
import resource
import signal
import sys
import threading
import time

import numpy as np

from ppcls.data.loader import Loader
from ppcls.engine.trainer import Trainer

RANK = os.environ.get("PADDLE_TRAINER_ID", "0")
PID = os.getpid()
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.scandir", "os.listdir")


def _file(name):
    path = os.path.join(os.environ["RECORD_TO"], f"{name}-{RANK}-{PID}")
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def _hash(array):
    return hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=8).hexdigest()


def _record_batches(file):
    finished, step = Loader._finished, Trainer.step
    place = os.environ.get("KILL_AT_PLACE")

    def finished_and_kept(self, positions, made, number):
        self.kept = [position.index for position in positions], [_hash(image) for image in made.images]
        return finished(self, positions, made, number)

    def step_and_record(self, batch, state):
        if place == f"{state.epoch},{state.batch}":
            while "KILL_WHEN" in os.environ and not os.path.exists(os.environ["KILL_WHEN"]):
                time.sleep(0.01)
            os.kill(PID, signal.SIGKILL)
        ids, pixels = self.loader.kept
        given = [_hash(tensor.numpy()) for tensor in batch]
        output = step(self, batch, state)
        record = {"place": [state.epoch, state.batch], "ids": ids, "pixels": pixels, "given": given}
        # One write: a process that is killed leaves whole lines.
        os.write(file, (json.dumps({**record, "loss": float(output.loss), "step": state.step}) + "\n").encode())
        return output

    Loader._finished, Trainer.step = finished_and_kept, step_and_record


def _kill_at_event(file, under, wanted):
    lock = threading.Lock()
    count = 0
    fsync = os.fsync
    num_bytes = os.environ.get("KILL_AFTER_BYTES")
    # Python ignores it; by default it ends a process, which has then written that much of a file.
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def note(event, path):
        nonlocal count
        with lock:
            count += 1
            number = count
            os.write(file, f"{event} {os.path.relpath(path, under)}\n".encode())
        if number == wanted and num_bytes:
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(num_bytes), resource.RLIM_INFINITY))
        elif number == wanted:
            os.kill(PID, signal.SIGKILL)

    def watch(event, arguments):
        if event not in EVENTS or os.getpid() != PID:
            return
        path = arguments[0]
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        elif not isinstance(path, (str, os.PathLike)):
            return
        if event in ("os.remove", "os.rmdir") and arguments[1] != -1:
            path = os.path.join(os.readlink(f"/proc/self/fd/{arguments[1]}"), path)
        if os.path.abspath(path).startswith(under):
            writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            note("write" if writes else event, path)

    def watched_fsync(descriptor):
        note("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    os.fsync = watched_fsync
    sys.addaudithook(watch)


if "RECORD_TO" in os.environ:
    _record_batches(_file("stream"))
if "KILL_AT_EVENT" in os.environ:
    _kill_at_event(_file("events"), os.environ["KILL_UNDER"], int(os.environ["KILL_AT_EVENT"]))
