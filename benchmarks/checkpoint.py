# SPDX-License-Identifier: Apache-2.0
"""How long saving keeps a training waiting: over the time of a plain save that writes everything before it returns.

DenseNet121 with Momentum and averaged weights is trained on small images; only the size of what is saved matters. A
plain save, as the framework had it, makes safetensors of all state, writes and flushes the files, reads them for their
sha256 and renames the directory. The two take turns. While one of ours is being written, training goes on: how much
slower those steps are is told too, and what a save costs in all.

    python benchmarks/checkpoint.py [--rounds 15] [--directory output]
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), "..")))

import numpy as np
import paddle
from safetensors.numpy import save

import ppcls.engine  # noqa: F401
from ppcls.config.registry import ARCHS
from ppcls.engine.checkpoint import Checkpointer, MovingParts, Pace
from ppcls.engine.ema import ModelEMA
from ppcls.engine.optimizer_state import optimizer_tensors
from ppcls.engine.precision import Precision
from ppcls.engine.snapshot import weights_of
from ppcls.engine.trainer import TrainState
from ppcls.optimizer import Constant
from ppcls.utils.logger import logger

CLASSES = 1000
QUIET_STEPS = 10
"""Steps of a round beside which nothing is saved."""


class Training:
    """A model with its optimizer and average, and steps on noise."""

    def __init__(self, arch: str, batch_size: int, size: int) -> None:
        paddle.seed(0)
        self.model = ARCHS[arch](class_num=CLASSES)
        schedule = Constant(epochs=1, step_each_epoch=1, learning_rate=1e-4)
        self.optimizer = paddle.optimizer.Momentum(schedule, 0.9, parameters=self.model.parameters())
        self.ema = ModelEMA(self.model, 0.999)
        self.parts = MovingParts(self.model, self.optimizer, schedule, Precision(), self.ema)
        rng = np.random.default_rng(0)
        self.images = paddle.to_tensor(rng.standard_normal((batch_size, 3, size, size), np.float32))
        self.labels = paddle.to_tensor(rng.integers(0, CLASSES, batch_size))

    def step(self) -> float:
        """Train on a batch; return how many seconds it took."""
        started = time.perf_counter()
        loss = paddle.nn.functional.cross_entropy(self.model(self.images), self.labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.clear_grad()
        self.ema.update(self.model)
        float(loss)
        return time.perf_counter() - started


def synced(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_plainly(training: Training, final: Path) -> float:
    """Return the seconds of a save that the training waits for."""
    started = time.perf_counter()
    partial = final.with_name(".partial")
    partial.mkdir()
    parts = training.parts
    for name, tensors in (
        ("model", weights_of(parts.model)),
        ("optimizer", optimizer_tensors(parts.optimizer, parts.model)),
        ("ema", weights_of(training.ema.model)),
    ):
        (partial / f"{name}.safetensors").write_bytes(save(tensors))
    (partial / "state.json").write_text(json.dumps({"schedule": parts.schedule.state_dict()}))
    entries = {}
    for path in sorted(partial.iterdir()):
        synced(path)
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
        entries[path.name] = {"size": path.stat().st_size, "sha256": digest.hexdigest()}
    (partial / "manifest.json").write_text(json.dumps({"files": entries}))
    synced(partial / "manifest.json")
    synced(partial)
    os.replace(partial, final)
    synced(final.parent)
    seconds = time.perf_counter() - started
    shutil.rmtree(final)
    return seconds


def median_ms(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1e3:.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="how often the two kinds of saving take turns")
    parser.add_argument("--arch", default="DenseNet121", help="the architecture")
    parser.add_argument("--batch-size", type=int, default=4, help="images in a batch")
    parser.add_argument("--size", type=int, default=32, help="height and width of an image in pixels")
    parser.add_argument(
        "--directory", help="a folder on the disk to save to; the system's for temporary files if not given"
    )
    arguments = parser.parse_args()
    logger.setLevel("WARNING")
    training = Training(arguments.arch, arguments.batch_size, arguments.size)
    plain, blocked, in_all, quiet, beside, written = [], [], [], [], [], []
    is_written = threading.Event()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        folder = Path(directory)
        checkpointer = Checkpointer(folder, training.parts, Pace(1, 1, 1), 0, after_save=is_written.set)

        def save_beside(epoch: int) -> None:
            normal = statistics.median(training.step() for _ in range(QUIET_STEPS))
            is_written.clear()
            started = time.perf_counter()
            checkpointer.save(TrainState(epoch=epoch, step=epoch))
            waited = time.perf_counter() - started
            during = []
            while not is_written.is_set():
                during.append(training.step())
            lost = sum(seconds - normal for seconds in during)
            quiet.append(normal)
            beside.append(statistics.mean(during))
            blocked.append(waited)
            in_all.append(waited + lost)
            written.append(time.perf_counter() - started)

        with checkpointer:
            for _ in range(QUIET_STEPS):
                training.step()
            for turn in range(arguments.rounds + 1):
                pair = [
                    lambda: plain.append(save_plainly(training, folder / "plain")),
                    lambda turn=turn: save_beside(turn + 1),
                ]
                for run in pair if turn % 2 == 0 else reversed(pair):
                    run()
        size = sum(path.stat().st_size for path in (folder / f"epoch_{arguments.rounds + 1}").iterdir())
    for figures in (plain, blocked, in_all, quiet, beside, written):
        del figures[0]  # the first of each warms up
    ratios = sorted(ours / theirs for ours, theirs in zip(blocked, plain))
    print(f"{arguments.arch} with Momentum and averaged weights: {size / 1e6:.0f} MB a checkpoint")
    print(
        f"plain save {median_ms(plain)}; training waits {median_ms(blocked)} for ours (medians of {len(plain)} turns)"
    )
    print(f"waits for ours / plain save: {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")
    slower = statistics.median(b / q - 1 for b, q in zip(beside, quiet))
    print(f"a step takes {median_ms(quiet)}, and {slower:+.0%} while ours is written, for {median_ms(written)}")
    share = statistics.median(ours / theirs for ours, theirs in zip(in_all, plain))
    print(f"waiting and slower steps in all: {median_ms(in_all)}, {share:.2f} of the plain save")


if __name__ == "__main__":
    main()
