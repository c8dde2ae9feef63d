# SPDX-License-Identifier: Apache-2.0
"""What the Trainer adds to a training step: its time over that of a bare Paddle loop.

Both loops train the same model on the same batches with the same optimizer, in turns; the Trainer
with everything that a run has (loss parts, metric, log lines, JSON records, seeds, finite check).

    python benchmarks/step_overhead.py [--rounds 15] [--steps 12] [--arch TinyDarkNet]
"""

import argparse
import io
import os
import statistics
import sys
import tempfile
import time

sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), "..")))

import numpy as np
import paddle

import ppcls.engine  # noqa: F401
from ppcls.config.registry import ARCHS
from ppcls.engine.callbacks import JsonLines
from ppcls.engine.progress import Progress
from ppcls.engine.trainer import ClassificationStep, Trainer, TrainState
from ppcls.loss import CELoss, CombinedLoss
from ppcls.metric import CombinedMetric, TopkAcc
from ppcls.optimizer import Constant
from ppcls.utils.logger import start_logging, stop_logging

CLASSES = 10


class Batches:
    """The same batches in every epoch, already in memory: nothing of the data path is measured."""

    def __init__(self, steps: int, batch_size: int, size: int) -> None:
        rng = np.random.default_rng(0)
        images = rng.standard_normal((batch_size, 3, size, size), np.float32)
        labels = rng.integers(0, CLASSES, batch_size)
        self.batches = [(paddle.to_tensor(images), paddle.to_tensor(labels))] * steps

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)

    def iterate(self, start: int = 0):
        """From a batch on."""
        return iter(self.batches[start:])

    def set_epoch(self, epoch: int) -> None:
        """Every epoch is the same."""


def build(arch: str):
    paddle.seed(0)
    model = ARCHS[arch](class_num=CLASSES)
    schedule = Constant(epochs=1, step_each_epoch=1, learning_rate=1e-4)
    decay = paddle.regularizer.L2Decay(1e-4)
    optimizer = paddle.optimizer.Momentum(schedule, 0.9, parameters=model.parameters(), weight_decay=decay)
    return model, optimizer, schedule


def run_bare(model, optimizer, schedule, batches: Batches) -> float:
    model.train()
    started = time.perf_counter()
    for images, labels in batches:
        loss = paddle.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        schedule.step()
    float(loss)
    return time.perf_counter() - started


def run_trainer(model, optimizer, schedule, batches: Batches, directory: str) -> float:
    metric = CombinedMetric([TopkAcc([1, 5])])
    progress = Progress(1, len(batches), 10, metric, False, (JsonLines(os.path.join(directory, "train.jsonl")),))
    step = ClassificationStep(model, CombinedLoss([(1.0, CELoss())]))
    trainer = Trainer(step, batches, optimizer, schedule, epochs=1, callbacks=[progress])
    started = time.perf_counter()
    trainer.fit(TrainState())
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="how often the two loops take turns")
    parser.add_argument("--steps", type=int, default=12, help="training steps of one turn")
    parser.add_argument("--arch", default="TinyDarkNet", help="the architecture")
    parser.add_argument("--batch-size", type=int, default=32, help="images in a batch")
    parser.add_argument("--size", type=int, default=32, help="height and width of an image in pixels")
    arguments = parser.parse_args()
    batches = Batches(arguments.steps, arguments.batch_size, arguments.size)
    bare, trained = build(arguments.arch), build(arguments.arch)
    ratios, bare_seconds = [], []
    with tempfile.TemporaryDirectory() as directory:
        start_logging(os.path.join(directory, "train.log"), stream=io.StringIO())
        run_bare(*bare, batches)
        run_trainer(*trained, batches, directory)
        for turn in range(arguments.rounds):
            pair = [lambda: run_bare(*bare, batches), lambda: run_trainer(*trained, batches, directory)]
            seconds = [run() for run in pair] if turn % 2 == 0 else [run() for run in reversed(pair)][::-1]
            bare_seconds.append(seconds[0] / arguments.steps)
            ratios.append(seconds[1] / seconds[0])
        stop_logging()
    name = f"{arguments.arch}, batch {arguments.batch_size} of {arguments.size}x{arguments.size}"
    print(f"{name}: bare step {statistics.median(bare_seconds) * 1e3:.1f} ms (median)")
    print(f"Trainer / bare: {statistics.median(ratios):.3f} (median of {len(ratios)} turns; ", end="")
    print(f"{min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
