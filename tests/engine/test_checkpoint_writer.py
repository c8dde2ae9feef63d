# SPDX-License-Identifier: Apache-2.0
"""Saves beside the training: what is saved is of one moment, in order, and no failure is lost."""

import hashlib
import logging
import os
import threading
from multiprocessing import get_context

import numpy as np
import pytest
import toys
from safetensors.numpy import load_file
from small_run import SmallRun

from ppcls.engine import checkpoint_writer
from ppcls.engine.agreement import Agreement
from ppcls.engine.background import Background
from ppcls.engine.callbacks import SAVE_FAILED, SaveCheckpoint
from ppcls.engine.checkpoint_writer import CheckpointWriter
from ppcls.engine.progress import Progress
from ppcls.engine.snapshot import Snapshot
from ppcls.engine.trainer import TrainState
from ppcls.utils.errors import PeerError, StorageError
from ppcls.utils.storage import verify


class Gate:
    """Holds every write of a snapshot up until it is opened; notes the order."""

    def __init__(self, monkeypatch):
        self.open, self.reached, self.written = threading.Event(), threading.Event(), []
        write = Snapshot.write

        def held_up(snapshot):
            self.reached.set()
            assert self.open.wait(300)
            write(snapshot)
            self.written.append(snapshot.path.name)

        monkeypatch.setattr(Snapshot, "write", held_up)


@pytest.fixture
def gate(monkeypatch):
    gate = Gate(monkeypatch)
    yield gate
    gate.open.set()


def fails_with(monkeypatch, errors):
    """Let one snapshot after the other fail with these errors, or be written for None."""
    write, left = Snapshot.write, list(errors)

    def fail(snapshot):
        error = left.pop(0)
        if error:
            raise error
        write(snapshot)

    monkeypatch.setattr(Snapshot, "write", fail)


def test_a_save_is_of_the_moment_it_was_asked_for_though_training_goes_on(tmp_path, gate):
    whole = SmallRun(tmp_path / "whole")
    whole.advance()
    gate.open.set()
    whole.save(1)
    gate.open.clear()

    run = SmallRun(tmp_path / "run")
    run.advance()
    with run.checkpointer:
        run.save(1)
        assert gate.reached.wait(300)
        before = run.tensors()
        for _ in range(3):
            run.advance()
        # Every kind of state has moved meanwhile.
        assert not any(np.array_equal(value, before[name]) for name, value in run.tensors().items() if "_mean" in name)
        assert not (tmp_path / "run" / "epoch_1").exists()
        gate.open.set()
    assert toys.digests(tmp_path / "run" / "epoch_1") == toys.digests(tmp_path / "whole" / "epoch_1")


def test_the_next_save_waits_for_the_one_before_it_and_the_end_for_the_last(tmp_path, gate):
    run = SmallRun(tmp_path)
    saved = []

    def save_twice():
        with run.checkpointer:
            for epoch in (1, 2):
                run.save(epoch)
                saved.append(epoch)

    thread = threading.Thread(target=save_twice)
    thread.start()
    assert gate.reached.wait(300)
    gate.open.set()
    thread.join(300)
    assert saved == [1, 2]
    assert gate.written == ["epoch_1", "epoch_2"]
    for name in gate.written:
        verify(tmp_path / name)


def test_the_second_save_is_not_begun_before_the_first_has_ended(tmp_path, gate):
    writer = CheckpointWriter(tmp_path)
    writer.begin(Snapshot(tmp_path / "epoch_1", "checkpoint", {}, {"a": "b"}))
    assert gate.reached.wait(300)
    is_settled = threading.Event()
    thread = threading.Thread(target=lambda: (writer.settle(), is_settled.set()))
    thread.start()
    assert not is_settled.wait(0.2)
    gate.open.set()
    assert is_settled.wait(300)
    thread.join(300)


def test_best_weights_are_on_the_disk_before_the_checkpoint_that_mentions_them(tmp_path, gate):
    run = SmallRun(tmp_path)
    gate.open.set()
    with run.checkpointer:
        for epoch in (1, 2):
            run.checkpointer.save_best(TrainState(epoch=epoch, best=0.5, best_epoch=epoch))
            run.save(epoch)
    assert gate.written == ["best_model", "epoch_1", "best_model", "epoch_2"]


def test_best_weights_that_no_save_follows_are_written_at_the_end(tmp_path):
    run = SmallRun(tmp_path)
    with run.checkpointer:
        run.checkpointer.save_best(TrainState(epoch=1, best=0.5, best_epoch=1))
    verify(tmp_path / "best_model")


def test_a_checkpoint_does_not_mention_best_weights_that_could_not_be_written(tmp_path, monkeypatch, caplog):
    run = SmallRun(tmp_path)
    run.checkpointer._writer.on_error = "continue"
    fails_with(monkeypatch, [StorageError("no space"), None, None])
    with run.checkpointer:
        run.checkpointer.save_best(TrainState(epoch=1, best=0.5, best_epoch=1))
        expected = run.tensors()
        run.save(1)
        run.checkpointer.settle()
        assert not (tmp_path / "best_model").exists() and not (tmp_path / "epoch_1").exists()
        run.advance()
        run.save(2)
    # Tried again, as they were then.
    stored = load_file(tmp_path / "best_model" / "model.safetensors")
    assert all(np.array_equal(value, expected[f"ema {name}"]) for name, value in stored.items())
    verify(tmp_path / "epoch_2")
    assert "[Save] no space; the training goes on" in caplog.text


def test_of_two_best_weights_that_could_not_be_written_the_later_are_tried_again(tmp_path, monkeypatch):
    writer = CheckpointWriter(tmp_path, "continue")
    fails_with(monkeypatch, [StorageError("no space"), StorageError("no space"), None, None])
    for number in (1, 2, 3):
        if number < 3:
            writer.stage(Snapshot(tmp_path / "best_model", "best weights", {}, {"state.json": str(number)}))
        writer.begin(Snapshot(tmp_path / f"epoch_{number}", "checkpoint", {}, {"a": "b"}))
        writer.settle()
    assert (tmp_path / "best_model" / "state.json").read_text() == "2"
    assert (tmp_path / "epoch_3").is_dir()


@pytest.mark.parametrize(
    ("on_error", "errors", "ends_after"),
    [
        ("continue", [1, 1, 0, 1, 1, 0], None),
        ("continue", [0, 1, 1, 1], 4),
        ("continue", [0, 0, 1], "end"),
        ("stop", [0, 1], 2),
    ],
)
def test_how_many_failures_end_a_training(tmp_path, monkeypatch, on_error, errors, ends_after):
    fails_with(monkeypatch, [StorageError("no space") if error else None for error in errors])
    writer = CheckpointWriter(tmp_path, on_error)
    done = []

    def train():
        for number in range(1, len(errors) + 1):
            writer.begin(Snapshot(tmp_path / f"epoch_{number}", "checkpoint", {}, {"a": "b"}))
            done.append(number)
            if number < len(errors) or ends_after != "end":
                writer.settle()
        done.append("end")
        writer.finish()

    if ends_after is None:
        train()
        assert done[-1] == "end"
    else:
        with pytest.raises(StorageError, match="^no space"):
            train()
        assert done[-1] == ends_after


def test_what_ends_a_training_says_which_checkpoint_is_the_last_good_one(tmp_path, monkeypatch):
    fails_with(monkeypatch, [None, StorageError("no space")])
    writer = CheckpointWriter(tmp_path)
    writer.begin(Snapshot(tmp_path / "epoch_1", "checkpoint", {}, {"a": "b"}))
    writer.settle()
    writer.begin(Snapshot(tmp_path / "epoch_2", "checkpoint", {}, {"a": "b"}))
    with pytest.raises(StorageError, match=f"^no space; the last good checkpoint is {tmp_path}/epoch_1$"):
        writer.settle()


def test_a_failed_save_does_not_hide_what_has_ended_the_training(tmp_path, monkeypatch, caplog):
    run = SmallRun(tmp_path)
    fails_with(monkeypatch, [StorageError("no space")])
    with pytest.raises(ValueError, match="the reason"), run.checkpointer:
        run.save(1)
        raise ValueError("the reason")
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == ["[Save] no space"]


def test_a_training_that_fails_ends_with_its_last_save_on_the_disk(tmp_path, gate):
    run = SmallRun(tmp_path)

    def fail():
        with pytest.raises(ValueError), run.checkpointer:
            run.save(1)
            raise ValueError

    thread = threading.Thread(target=fail)
    thread.start()
    assert gate.reached.wait(300)
    gate.open.set()
    thread.join(300)
    verify(tmp_path / "epoch_1")


def test_a_bug_in_the_thread_is_no_full_disk(tmp_path, monkeypatch):
    run = SmallRun(tmp_path)
    run.checkpointer._writer.on_error = "continue"
    fails_with(monkeypatch, [ZeroDivisionError("a bug")])
    with pytest.raises(ZeroDivisionError, match="a bug"), run.checkpointer:
        run.save(1)
        run.checkpointer.settle()


def test_a_failure_of_another_process_is_a_failure_of_all(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_writer.dist, "gathered", lambda own: [own, "no space there"])
    writer = CheckpointWriter(tmp_path)
    writer.begin(Snapshot(tmp_path / "epoch_1", "checkpoint", {}, {"a": "b"}))
    with pytest.raises(PeerError, match=f"^process 1: no space there; the last good checkpoint is {tmp_path}/epoch_1"):
        writer.settle()
    writer.settle()  # nothing is left to settle, and nobody is asked


def test_a_failure_is_settled_after_the_next_update(tmp_path, monkeypatch):
    fails_with(monkeypatch, [StorageError("no space")])
    run, agreement = SmallRun(tmp_path), Agreement()
    callback = SaveCheckpoint(run.checkpointer, Progress(9, 4, 1), None, agreement)
    state = TrainState(epoch=1, step=4)
    callback.on_train_start(state)
    with pytest.raises(StorageError, match="no space"), run.checkpointer:
        callback.on_epoch_end(state)
        run.checkpointer._writer._background._is_done.wait(300)
        state.epoch, state.batch, state.step = 2, 1, 5
        agreement.settle()
        assert SAVE_FAILED in agreement
        callback.on_step_end(state, None)


def test_work_is_done_once_and_its_error_given_once():
    background = Background()
    assert background.wait() is None
    background.start(lambda: 1 / 0)
    assert isinstance(background.wait(), ZeroDivisionError)
    assert background.wait() is None and not background.has_failed


def test_the_end_of_a_training_finds_all_its_checkpoints(train):
    output = train("run", "Global.epochs=3", "Global.save_step_interval=1", "Global.keep_checkpoint_max=99")
    names = {path.name for path in output.glob("epoch_*")}
    # 5 updates an epoch; the last of each ends it.
    assert names == {
        f"epoch_{epoch}{step}"
        for epoch in (1, 2, 3)
        for step in ("", *(f"_step_{5 * (epoch - 1) + n}" for n in (1, 2, 3, 4)))
    }
    for name in names:
        verify(output / name)


def in_a_worker(pipe, folder):
    """What workers do: read, hash, log, answer."""
    hashlib.sha256((folder / "file").read_bytes()).hexdigest()
    logging.getLogger("ppcls").debug("from a worker")
    pipe.send(len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0)


def test_processes_that_are_forked_while_a_save_runs_neither_hang_nor_harm_it(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    run = SmallRun(tmp_path / "run", keep_max=2)
    context = get_context("fork")
    stop = threading.Event()
    saved = []

    def save_all_the_time():
        with run.checkpointer:
            while not stop.is_set():
                saved.append(len(saved) + 1)
                run.save(saved[-1])

    thread = threading.Thread(target=save_all_the_time)
    thread.start()
    try:
        for _ in range(40):
            ours, theirs = context.Pipe()
            worker = context.Process(target=in_a_worker, args=(theirs, tmp_path))
            worker.start()
            theirs.close()
            assert ours.poll(300)
            ours.recv()
            worker.join(300)
            assert worker.exitcode == 0
    finally:
        stop.set()
        thread.join(300)
    for epoch in saved[-2:]:
        verify(tmp_path / "run" / f"epoch_{epoch}")
