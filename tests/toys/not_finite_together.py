# SPDX-License-Identifier: Apache-2.0
"""Trainings of two processes of which one meets what is not finite, or runs out of memory, and the other does not.

The arguments: a configuration and a folder. Every training writes below the folder, and each process the file
``told_<rank>.json``. The last one ends in an error.
"""

import json
import sys
from pathlib import Path

import paddle
from toy_poison import Poison

from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.engine.callbacks import Callback
from ppcls.engine.gradients import Gradients
from ppcls.engine.optimizer_state import optimizer_tensors
from ppcls.engine.snapshot import weights_of
from ppcls.engine.train_step import ClassificationStep
from ppcls.engine.trainer import Trainer
from ppcls.utils import dist
from ppcls.utils.cli import run

CONFIG, FOLDER = sys.argv[1:]
NAN = float("nan")
SETTINGS = ["Global.epochs=2", "EMA={decay: 0.9}", "Global.save_step_interval=3", "Global.eval_during_train=false"]
SETTINGS += ["DataLoader.Train.sampler.batch_size=4", "Global.print_batch_step=1"]
PATCHED = [(Trainer, "step"), (ClassificationStep, "__call__"), (Gradients, "once")]
ORIGINALS = [getattr(owner, name) for owner, name in PATCHED]
told = {}


class Watch(Callback):
    """Notes whether a batch has changed anything."""

    def __init__(self, parts, name):
        self.parts = parts
        self.name = name
        self.kept = {}

    def now(self):
        parts = self.parts
        tensors = {**weights_of(parts.model), **optimizer_tensors(parts.optimizer, parts.model)}
        tensors.update({f"average/{name}": array for name, array in weights_of(parts.ema.model).items()})
        return {name: array.tobytes() for name, array in tensors.items()}

    def on_step_end(self, state, output):
        kept, self.kept = self.kept, self.now()
        told[self.name].append([state.epoch, state.batch, state.step, output is None, self.kept == kept])

    def on_train_end(self, state):
        told[self.name].append(["end", self.now() == self.kept, state.non_finite])


def train(name, *overrides, change=lambda: None):
    for (owner, attribute), original in zip(PATCHED, ORIGINALS):
        setattr(owner, attribute, original)
    change()
    told[name] = []
    parts = (engine := Engine(load_config(CONFIG, [*SETTINGS, f"Global.output_dir={FOLDER}/{name}", *overrides]))).parts
    parts.callbacks.append(Watch(parts, name))
    engine.train()


def poison(where):
    return lambda: Poison(where, NAN, [(2, 2)], rank=1).put_in()


def little_memory():
    compute = ClassificationStep.__call__

    def limited(self, batch):
        if dist.rank() == 1 and len(batch[1]) > 2:
            paddle.empty([2**45])
        return compute(self, batch)

    ClassificationStep.__call__ = limited


def main():
    for where in ("input", "loss", "gradient", "statistics"):
        for policy in ("skip", "rollback"):
            train(f"{where}_{policy}", f"Global.on_non_finite={policy}", change=poison(where))
    train("little_memory", change=little_memory)
    train("small_pieces", "Global.micro_batch_size=2")
    try:
        train("stop", change=poison("input"))
    finally:
        Path(FOLDER, f"told_{dist.rank()}.json").write_text(json.dumps(told))


run(main)
