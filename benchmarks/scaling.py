# SPDX-License-Identifier: Apache-2.0
"""What more processes bring: images per second of several over one, and what their communication costs.

    python benchmarks/scaling.py [--rounds 8] [--steps 1] [--arch DenseNet121] [--batch-size 8] [--size 224]

Every process (gloo, on the CPU) has one thread and trains with the Trainer on images that are already in memory; one
process alone and the group take turns, and each figure is the best of its turns, as other work on the machine only
lengthens them. The group also trains without exchanging gradients, which shows how much of the loss is the machine's
(memory, caches) and the waiting at each update, and how much the gradients'.
"""

import argparse
import multiprocessing
import os
import socket
import sys
import time

sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), "..")))

import paddle
from step_overhead import Batches

import ppcls.engine  # noqa: F401
from ppcls.config.registry import ARCHS
from ppcls.engine.trainer import ClassificationStep, Trainer, TrainState
from ppcls.loss import CELoss, CombinedLoss
from ppcls.optimizer import Constant
from ppcls.utils import dist
from ppcls.utils.memory import keep_freed_memory

CLASSES = 1000
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""For the processes that are started, which read it when they load the libraries."""
TARGET = 1.6
"""Images per second of two processes over those of one."""


class Work:
    """One process's share of the training, and the parts of it that are measured."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        dist.connect()
        keep_freed_memory()  # as the Loader does
        paddle.seed(0)
        model = ARCHS[arguments.arch](class_num=CLASSES)
        schedule = Constant(epochs=1, step_each_epoch=1, learning_rate=1e-4)
        optimizer = paddle.optimizer.Momentum(schedule, 0.9, parameters=model.parameters())
        self.parallel = paddle.DataParallel(model) if dist.world_size() > 1 else None
        self.batches = Batches(1, arguments.batch_size, arguments.size)
        step = ClassificationStep(self.parallel or model, CombinedLoss([(1.0, CELoss())]))
        self.trainer = Trainer(step, self.batches, optimizer, schedule, epochs=1)
        model.train()
        # What Paddle sends as one message: the gradients in groups, those that are ready first in the first.
        weights = [weight for weight in model.parameters() if weight.trainable]
        groups = reversed(self.parallel.group_indices) if self.parallel else [range(len(weights))]
        sizes = [sum(weights[index].size for index in group) for group in groups]
        self.messages = [paddle.zeros([size], "float32") for size in sizes]

    def step(self) -> None:
        """One update, with gradients averaged over the processes."""
        self.trainer.step(self.batches.batches[0], TrainState(epoch=1, batch=1))

    def step_apart(self) -> None:
        """One update of a process that is by itself."""
        assert self.parallel
        with self.parallel.no_sync():
            self.step()

    def all_reduce(self) -> None:
        """The messages of an update, and nothing else."""
        for message in self.messages:
            paddle.distributed.all_reduce(message)


def take_turns(pipe, arguments: argparse.Namespace) -> None:
    """A process: do what the pipe says so many times, and answer with the seconds of each."""
    work = Work(arguments)
    pipe.send([message.size * 4 for message in work.messages])
    for name, count in iter(pipe.recv, None):
        seconds = []
        for _ in range(count):
            started = time.perf_counter()
            getattr(work, name)()
            seconds.append(time.perf_counter() - started)
        pipe.send(seconds)


def start(processes: int, arguments: argparse.Namespace) -> list:
    """Start processes that train together; gives the pipe and the process of each."""
    context = multiprocessing.get_context("spawn")
    ports = []
    for _ in range(processes + 1):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    master, *ends = (f"127.0.0.1:{port}" for port in ports)
    started = []
    for rank in range(processes):
        os.environ.update(
            ONE_THREAD,
            PADDLE_TRAINER_ID=str(rank),
            PADDLE_TRAINERS_NUM=str(processes),
            PADDLE_CURRENT_ENDPOINT=ends[rank],
            PADDLE_TRAINER_ENDPOINTS=",".join(ends),
            PADDLE_MASTER=master,
            PADDLE_DISTRI_BACKEND="gloo",
        )
        here, there = context.Pipe()
        process = context.Process(target=take_turns, args=(there, arguments), daemon=True)
        process.start()
        started.append((here, process))
    return started


def ask(group: list, name: str, count: int) -> float:
    """Let all processes of a group do something ``count`` times; the seconds of one, those of the slowest process."""
    for pipe, _ in group:
        pipe.send((name, count))
    return max(sum(pipe.recv()) / count for pipe, _ in group)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="DenseNet121", help="the architecture (default: DenseNet121)")
    parser.add_argument("--batch-size", type=int, default=8, help="images of a process in a step (default: 8)")
    parser.add_argument("--size", type=int, default=224, help="height and width of an image in pixels (default: 224)")
    parser.add_argument("--processes", type=int, default=2, help="processes that train together (default: 2)")
    parser.add_argument("--rounds", type=int, default=8, help="turns of each side (default: 8)")
    parser.add_argument("--steps", type=int, default=1, help="steps of a turn (default: 1)")
    arguments = parser.parse_args()
    if arguments.processes < 2:
        parser.error("--processes: one process has nobody to wait for; give 2 or more")
    alone, group = start(1, arguments), start(arguments.processes, arguments)
    for pipe, _ in alone:
        pipe.recv()
    messages = [pipe.recv() for pipe, _ in group][0]
    sides = [(alone, "step"), (group, "step"), (group, "step_apart"), (group, "all_reduce")]
    for processes, name in sides:
        ask(processes, name, 1)
    seconds: list[list[float]] = [[] for _ in sides]
    for turn in range(arguments.rounds):
        order = range(len(sides)) if turn % 2 == 0 else reversed(range(len(sides)))
        for side in order:
            seconds[side].append(ask(*sides[side], arguments.steps))
    one, together, apart, exchange = map(min, seconds)
    for pipe, process in alone + group:
        pipe.send(None)
        process.join()

    number, images, total = arguments.processes, arguments.batch_size, sum(messages)
    rows = [("1 process", one, 1), (f"{number} processes", together, number)]
    rows.append((f"{number} processes, gradients apart", apart, number))
    print(f"{arguments.arch}, batch {images} of {arguments.size}x{arguments.size} a process, one thread a process")
    print(f"{'':<34} {'s/step':>8} {'images/s':>9} {'ratio':>6} {'target':>6}")
    for title, seconds_a_step, count in rows:
        target = f"{TARGET:>6.2f}" if count == 2 and seconds_a_step is together else ""
        rate = count * images / seconds_a_step
        print(f"{title:<34} {seconds_a_step:>8.3f} {rate:>9.2f} {rate * one / images:>6.2f} {target}".rstrip())
    print(
        f"communication of a step: {total / 1e6:.1f} MB of gradients in {len(messages)} messages, of which a process "
        f"sends {2 * (number - 1) / number * total / 1e6:.1f} MB in a ring"
    )
    print(
        f"by itself {exchange * 1e3:.0f} ms ({exchange / one:.1%} of a step of one process); "
        f"a step with it is {(together - apart) * 1e3:+.0f} ms longer than without"
    )


if __name__ == "__main__":
    main()
