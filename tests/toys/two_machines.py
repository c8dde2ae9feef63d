# SPDX-License-Identifier: Apache-2.0
"""Run by the launcher, once a process: trainings on two machines that share no disk, then on one disk.

Each process works in a folder of its own, ``machine_0`` or ``machine_1``: a relative output directory is on its
disk, an absolute one on a disk that they share. How each training ended goes to ``told.json`` in that folder.
"""

import json
import os
import shutil
import sys
from pathlib import Path

from stop_at import StopAt

from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.engine.callbacks import Callback
from ppcls.utils.errors import PpclsError
from ppcls.utils.logger import stop_logging

RANK = int(os.environ["PADDLE_TRAINER_ID"])
SHARED = Path.cwd() / "shared"
SETTINGS = ["Global.save_step_interval=2", "Global.keep_checkpoint_max=99", "Global.print_batch_step=1"]
SETTINGS += ["DataLoader.Train.sampler.batch_size=4", "EMA={decay: 0.5}"]
EVERYWHERE, AUTO = "Global.save_on_all_ranks=true", "Global.checkpoints=auto"


class LosesItsPlace(Callback):
    """At the end of the first epoch, the second process can write no more."""

    def __init__(self, checkpointer):
        self.checkpointer = checkpointer

    def on_epoch_end(self, state):
        if state.epoch == 1:
            self.checkpointer.settle()
            if RANK == 1:
                shutil.rmtree(self.checkpointer.directory)
                self.checkpointer.directory.write_text("a file")


def train(output, *overrides, until=None, is_disturbed=False):
    """How the training ended: where, or with which error."""
    engine = Engine(load_config(sys.argv[1], [f"Global.output_dir={output}", *SETTINGS, *overrides]))
    if until:
        engine.parts.callbacks.append(StopAt(*until))
    if is_disturbed:
        engine.parts.callbacks.insert(0, LosesItsPlace(engine.parts.checkpointer))
    try:
        state = engine.train()
    except PpclsError as error:
        return [type(error).__name__, str(error)]
    finally:
        stop_logging()
    return [state.epochs_done, state.step]


def own(output):
    """Where this process writes checkpoints."""
    return Path(output, f"rank_{RANK}") if RANK else Path(output)


def damage(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


told = {}
os.mkdir(f"machine_{RANK}")
os.chdir(f"machine_{RANK}")

# 5 updates an epoch: saved at the steps 2, 4, 6 and 8, and at the ends of the epochs.
told["whole"] = train("whole", EVERYWHERE)
train("parts", EVERYWHERE, until=(2, 4))
if RANK == 1:
    damage(own("parts") / "epoch_2_step_8" / "model.safetensors")
told["one damaged"] = train("parts", EVERYWHERE, AUTO)

train("lost", EVERYWHERE, until=(1, 3))
if RANK == 1:
    shutil.rmtree("lost")
told["one lost"] = train("lost", EVERYWHERE, AUTO)
told["one lost, by name"] = train("lost", EVERYWHERE, "Global.checkpoints=lost/epoch_1_step_2")

if RANK == 1:
    shutil.copytree(own("whole") / "epoch_1_step_2", own("lost") / "epoch_1_step_2")
told["one of another run"] = train("lost", EVERYWHERE, AUTO)

if RANK == 1:
    Path("blocked").mkdir()
    Path("blocked", "rank_1").write_text("a file")
told["one cannot write"] = train("blocked", EVERYWHERE)
told["one can write no more"] = train("disturbed", EVERYWHERE, is_disturbed=True)

# One disk, and only the first process writes.
train(SHARED / "parts", until=(2, 4))
told["shared"] = train(SHARED / "parts", AUTO)

Path("told.json").write_text(json.dumps(told))
