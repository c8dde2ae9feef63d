# SPDX-License-Identifier: Apache-2.0
"""A training that is cut off in the middle of an epoch goes on as if nothing had happened."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
import toys
from stop_at import StopAt

from ppcls.engine.trainer import ClassificationStep

# 40 images in batches of 4 are 10 batches an epoch.
SETTINGS = ["Global.epochs=4", "Global.print_batch_step=1", "DataLoader.Train.sampler.batch_size=4"]
PLAIN = ["Global.save_step_interval=3"]
ACCUMULATING = [*PLAIN, "Global.update_freq=2", "EMA={decay: 0.9}", "Arch.dropout=0.3"]
ADAM_BY_EPOCH = [*PLAIN, "Optimizer={name: AdamW, lr: {name: Step, learning_rate: 0.01, step_size: 1, gamma: 0.5}}"]
ADAM_BY_EPOCH += ["Optimizer.lr.by_epoch=true", "Global.iter_per_epoch=8"]

KILLED_AFTER = """
import os, sys
from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.engine.trainer import Trainer

step = Trainer.step

def step_and_die(self, batch, state):
    if (state.epoch, state.batch) == (2, 6):
        os.kill(os.getpid(), 9)
    return step(self, batch, state)

Trainer.step = step_and_die
Engine(load_config(sys.argv[1], sys.argv[2:])).train()
"""


@pytest.fixture
def train(train):
    """The same with these settings, and perhaps not to the end."""

    def run(name, *overrides, until=None):
        return train(name, *SETTINGS, *overrides, callbacks=[StopAt(*until)] if until else [])

    return run


def figures(output, event):
    """What each place of the training gave, as far as it does not depend on the clock; twice the same is once."""
    clock = {"time", "ips", "batch_cost", "reader_cost", "eta_seconds"}
    return {tuple((k, v) for k, v in record.items() if k not in clock) for record in toys.records(output, event)}


def assert_same_training(parts, whole, last="epoch_4"):
    for name in (last, "best_model"):
        assert toys.digests(parts / name) == toys.digests(whole / name)
    for event in ("train", "epoch", "eval"):
        assert figures(parts, event) == figures(whole, event)
        assert figures(whole, event)


@pytest.mark.parametrize("workers", [(0, 0), (2, 0), (0, 2)])
@pytest.mark.parametrize(
    ("settings", "newest"),
    [(PLAIN, "epoch_3_step_27"), (ACCUMULATING, "epoch_3_step_12"), (ADAM_BY_EPOCH, "epoch_3_step_21")],
    ids=["plain", "accumulating", "adam by epoch"],
)
def test_a_run_cut_in_the_middle_of_an_epoch_equals_one_that_was_not(train, settings, newest, workers):
    first, second = (f"DataLoader.Train.loader.num_workers={number}" for number in workers)
    whole = train("whole", *settings, first)
    parts = train("parts", *settings, first, until=(3, 7))
    assert (parts / newest).is_dir()
    assert not (parts / "epoch_3").exists()
    train("parts", *settings, second, "Global.checkpoints=auto")
    assert_same_training(parts, whole)


def test_a_run_cut_several_times_in_one_epoch_equals_one_that_was_not(train):
    whole = train("whole", *PLAIN)
    parts = train("parts", *PLAIN, until=(1, 4))
    for place in ((1, 7), (1, 10), (2, 6)):
        train("parts", *PLAIN, "Global.checkpoints=auto", until=place)
    train("parts", *PLAIN, "Global.checkpoints=auto")
    assert_same_training(parts, whole)


def test_what_a_model_draws_from_python_and_numpy_is_continued_too(train, monkeypatch):
    compute = ClassificationStep.__call__

    def with_noise(self, batch):
        images, labels = batch
        noise = np.random.normal(0, 0.1, images.shape).astype("float32") + random.gauss(0, 0.1)
        return compute(self, (images + paddle.to_tensor(noise), labels))

    monkeypatch.setattr(ClassificationStep, "__call__", with_noise)
    whole = train("whole", *PLAIN)
    parts = train("parts", *PLAIN, until=(2, 6))
    train("parts", *PLAIN, "Global.checkpoints=auto")
    assert_same_training(parts, whole)


def test_saving_in_the_middle_changes_nothing(train):
    whole = train("whole", "Global.epochs=2")
    often = train("often", "Global.epochs=2", "Global.save_step_interval=1")
    assert_same_training(often, whole, "epoch_2")


def test_a_killed_run_goes_on_from_the_middle_of_the_epoch(train, tmp_path):
    whole = train("whole", *PLAIN)
    overrides = [f"Global.output_dir={tmp_path / 'parts'}", *SETTINGS, *PLAIN]
    command = [sys.executable, "-c", KILLED_AFTER, str(tmp_path / "toy.yaml"), *overrides]
    root, toy_folder = Path(__file__).parents[1], Path(toys.__file__).parent
    killed = subprocess.run(
        command, env={"PYTHONPATH": f"{root}:{toy_folder}", "PATH": ""}, capture_output=True, timeout=300, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    parts = tmp_path / "parts"
    # Whether the checkpoint of the step before is on the disk already, only the disk knows.
    assert {path.name for path in parts.glob("epoch_*")} >= {"epoch_1", "epoch_2_step_12"}
    train("parts", *PLAIN, "Global.checkpoints=auto")
    assert_same_training(parts, whole)


def test_a_checkpoint_of_the_middle_can_be_the_last_of_several_kept(train):
    output = train("run", *PLAIN, "Global.keep_checkpoint_max=3")
    assert {path.name for path in output.glob("epoch_*")} == {"epoch_4_step_36", "epoch_4_step_39", "epoch_4"}
    assert (output / "best_model").is_dir()


def test_a_step_interval_that_never_falls_into_an_epoch_is_warned_about(train):
    log = (train("run", "Global.epochs=1", "Global.save_step_interval=10") / "train.log").read_text()
    assert "Global.save_step_interval has no effect: 10 updates always end an epoch, which has 10" in log


def test_a_save_interval_beside_a_number_of_checkpoints_is_warned_about(train):
    settings = ["Global.epochs=1", "Global.save_interval=5", "Global.keep_checkpoint_max=2"]
    log = (train("run", *settings) / "train.log").read_text()
    assert "Global.save_interval has no effect beside keep_checkpoint_max" in log


def test_fewer_epochs_than_are_done_are_nothing_to_do_also_in_the_middle_of_one(train):
    output = train("run", *PLAIN, until=(3, 7))
    num_records = len(toys.records(output, "train"))
    train("run", *PLAIN, "Global.epochs=2", "Global.checkpoints=auto")
    assert "nothing to do: 2 of 2 epochs are done" in (output / "train.log").read_text()
    assert len(toys.records(output, "train")) == num_records
