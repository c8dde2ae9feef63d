# SPDX-License-Identifier: Apache-2.0
"""Faults of one process, for ``Global.imports``.

``TOY_FAULT`` is a JSON object: ``what`` happens ``where`` (a step: ``at`` this epoch and batch), in process ``rank``.
With ``places``, a list of [epoch, batch, rank], it happens once at each; ``once`` begins the names of files for that.
"""

import ctypes
import json
import os
import signal
import time
from pathlib import Path

from paddle import nn

from ppcls.data.transforms import RandCropImage
from ppcls.engine.checkpoint import Checkpointer
from ppcls.engine.trainer import Trainer
from ppcls.utils.errors import DataError, NumericsError

FAULT = json.loads(os.environ.get("TOY_FAULT", "{}"))
RANK = int(os.environ.get("PADDLE_TRAINER_ID", "0"))


def fail():
    what = FAULT["what"]
    if what == "raise":
        raise ValueError("the toy's fault")
    if what == "data":
        raise DataError("toy.png: the toy's fault")
    if what == "numerics":
        raise NumericsError("the toy's fault")
    if what == "hang":
        while True:
            time.sleep(3600)
    if what == "hang without a word":
        # No other thread of Python runs meanwhile, and no signal ends it.
        mutex = ctypes.create_string_buffer(256)
        ctypes.PyDLL(None).pthread_mutex_lock(mutex)
        ctypes.PyDLL(None).pthread_mutex_lock(mutex)
    if what == "take 0.2 s":
        time.sleep(0.2)
        return
    if what == "tell the launcher":
        os.kill(int(os.environ["TOY_LAUNCHER"]), signal.SIGTERM)
        return
    os.kill(os.getpid(), getattr(signal, what))


def is_at(where, *place):
    if "places" in FAULT:
        return FAULT["where"] == where and [*place, RANK] in FAULT["places"] and is_first("_".join(map(str, place)))
    return FAULT.get("where") == where and FAULT["rank"] == RANK and FAULT.get("at", list(place)) == list(place)


def is_first(name):
    try:
        Path(f"{FAULT['once']}_{name}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def failing(function, where, place=lambda *arguments: (), before=True):
    """The function, with the fault before or after it, when it is asked for there."""

    def faulty(*arguments):
        if before and is_at(where, *place(*arguments)):
            fail()
        output = function(*arguments)
        if not before and is_at(where, *place(*arguments)):
            fail()
        return output

    return faulty


def place_of_step(trainer, batch, state):
    return state.epoch, state.batch


if FAULT:
    Trainer.step = failing(Trainer.step, "step", place_of_step)
    Trainer.step = failing(Trainer.step, "step's end", place_of_step, before=False)
    forward = nn.Conv2D.forward
    nn.Conv2D.forward = failing(forward, "forward", lambda layer, images: (layer.training,))
    RandCropImage.apply = failing(RandCropImage.apply, "image")
    Checkpointer.save = failing(Checkpointer.save, "save")
    if is_at("import"):
        fail()
