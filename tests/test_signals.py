# SPDX-License-Identifier: Apache-2.0
"""A training is signalled at chosen moments: it saves, ends or goes on, and no update is lost or done otherwise."""

import contextlib
import os
import signal
import threading
from types import SimpleNamespace

import pytest
import toys
from same_run import figures

from ppcls.config import load_config
from ppcls.data.batch_maker import BatchMaker
from ppcls.engine import Engine
from ppcls.engine.callbacks import Callback, Evaluation
from ppcls.engine.checkpoint import Checkpointer
from ppcls.engine.precision import Precision
from ppcls.engine.run_directory import checkpoints_in
from ppcls.engine.trainer import Trainer
from ppcls.metric import CombinedMetric
from ppcls.utils import storage
from ppcls.utils.errors import Stopped, StorageError
from ppcls.utils.logger import stop_logging

TERM, INT, USR1 = signal.SIGTERM, signal.SIGINT, signal.SIGUSR1
# 40 images in batches of 4 are 10 batches an epoch; 24 in batches of 10 are 3 batches of evaluation.
PLAIN = ["Global.print_batch_step=1", "DataLoader.Train.sampler.batch_size=4"]
ACCUMULATING = [*PLAIN, "Global.update_freq=2", "EMA={decay: 0.9}", "Arch.dropout=0.3"]
BY_EPOCH = [*PLAIN, "Optimizer={name: AdamW, lr: {name: Step, learning_rate: 0.01, step_size: 1, gamma: 0.5}}"]
BY_EPOCH += ["Optimizer.lr.by_epoch=true"]
AUTO = "Global.checkpoints=auto"


@pytest.fixture(autouse=True)
def handlers():
    """What a program in the foreground starts with (in the background SIGINT is ignored), and has afterwards."""
    numbers = {INT: signal.default_int_handler, TERM: signal.SIG_DFL, USR1: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in numbers.items()}
    yield
    after = {number: signal.signal(number, handler) for number, handler in before.items()}
    assert after == numbers
    assert signal.set_wakeup_fd(-1) == -1
    assert "signals" not in [thread.name for thread in threading.enumerate()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, toy_data):
    """The folder of a training with these settings that nothing happened to."""
    known = {}

    def run(settings):
        key = " ".join(settings)
        if key not in known:
            folder = tmp_path_factory.mktemp("whole")
            Engine(load_config(toys.write_yaml(folder, toy_data), settings)).train()
            stop_logging()
            known[key] = folder / "output"
        return known[key]

    return run


@pytest.fixture
def parts(tmp_path):
    return tmp_path / "parts"


@pytest.fixture
def sends(monkeypatch):
    """Send a signal, once, when a method of the product is called: the so-many-th time since a step has begun."""
    now = SimpleNamespace(place=None, count=0)
    step = Trainer.step

    def noted_step(self, batch, state):
        now.place, now.count = (state.epoch, state.batch), 0
        return step(self, batch, state)

    monkeypatch.setattr(Trainer, "step", noted_step)

    def prepare(number, owner, method, place, count=1, then=lambda: None):
        original, now.place, now.count = getattr(owner, method), None, 0
        left = [number]

        def called(*arguments, **named):
            now.count += 1
            if place == now.place and now.count >= count and left:
                os.kill(os.getpid(), left.pop())
                then()
            return original(*arguments, **named)

        monkeypatch.setattr(owner, method, called)

    return prepare


def wait_for_ever():
    threading.Event().wait()


def saved(output):
    """The newest checkpoint; every update that was logged is in it."""
    newest = checkpoints_in(output)[0].name
    record = toys.records(output, "train")[-1]
    epoch, step = record["epoch"], record["step"]
    is_whole = newest == f"epoch_{epoch}" and record["batch"] == 10
    assert is_whole or newest == f"epoch_{epoch}_step_{step}"
    return newest


def assert_same_training(parts, whole):
    for name in ("epoch_2", "best_model"):
        assert toys.digests(parts / name) == toys.digests(whole / name)
    assert figures(parts) == figures(whole)


def end_of(output):
    return [(record["reason"], record["exit_code"]) for record in toys.records(output, "exit")]


MOMENTS = {
    "in a step": (Trainer, "_update", (2, 4), 1, "epoch_2_step_14"),
    "too late for the step": (Precision, "update", (2, 4), 1, "epoch_2_step_14"),
    "in the last step of an epoch": (Trainer, "_update", (1, 10), 1, "epoch_1_step_10"),
    "in the last step of all": (Trainer, "_update", (2, 10), 1, "epoch_2_step_20"),
    # The first two calls are of the training's own metric.
    "in evaluation": (CombinedMetric, "update", (1, 10), 3, "epoch_1_step_10"),
    "in the last batch of an evaluation": (CombinedMetric, "update", (1, 10), 4, "epoch_1_step_10"),
    "in the last evaluation": (CombinedMetric, "update", (2, 10), 2, "epoch_2_step_20"),
    "after the last batch of an evaluation": (CombinedMetric, "sync", (1, 10), 2, "epoch_1"),
    "before the epoch is saved": (Evaluation, "_keep_best", (1, 10), 1, "epoch_1"),
    "before an image is read": (BatchMaker, "__call__", (2, 4), 1, "epoch_2_step_14"),
    "before an image is read for evaluation": (BatchMaker, "__call__", (1, 10), 2, "epoch_1_step_10"),
}


@pytest.mark.promise("F06")
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("number", [TERM, INT])
def test_a_signal_ends_a_training_and_the_same_command_goes_on_to_the_bit(train, whole, parts, sends, moment, number):
    *place, expected = MOMENTS[moment]
    sends(number, *place)
    with pytest.raises(Stopped) as caught:
        train("parts", *PLAIN)
    assert (caught.value.number, caught.value.exit_code) == (number, 128 + number)
    name = saved(parts)
    assert name == expected
    assert end_of(parts) == [(f"stopped by signal {number}", 128 + number)]
    log = (parts / "train.log").read_text()
    assert f"saved in {parts / name}; to go on, give the same command with -o Global.checkpoints=auto" in log
    train("parts", *PLAIN, AUTO)
    assert_same_training(parts, whole(PLAIN))
    assert end_of(parts)[1:] == [("finished", 0)]


@pytest.mark.promise("F06")
@pytest.mark.parametrize("number", [TERM, USR1])
def test_a_signal_while_the_thread_saves_waits_for_it_and_saves_again(train, whole, parts, monkeypatch, number):
    replace, step, save = storage._replace_directory, Trainer._update, Checkpointer.save
    is_saving, is_saving_again = threading.Event(), threading.Event()

    def slow_replace(partial, final):
        is_saving.set()
        assert is_saving_again.wait(60)
        replace(partial, final)

    def step_then_signal(self, last, state):
        if (state.epoch, state.batch) == (2, 3):
            assert is_saving.wait(60)
            os.kill(os.getpid(), number)
        return step(self, last, state)

    def noted_save(self, state):
        if is_saving.is_set():
            is_saving_again.set()
        save(self, state)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "_replace_directory", slow_replace)
        patch.setattr(Trainer, "_update", step_then_signal)
        patch.setattr(Checkpointer, "save", noted_save)
        with pytest.raises(Stopped) if number == TERM else contextlib.nullcontext():
            train("parts", *PLAIN)
    assert f"[Save][Epoch 2] {parts}/epoch_2_step_13\n" in (parts / "train.log").read_text()
    if number == TERM:
        assert saved(parts) == "epoch_2_step_13"
        train("parts", *PLAIN, AUTO)
    assert_same_training(parts, whole(PLAIN))


@pytest.mark.promise("F06")
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_to_save_saves_at_the_next_update_and_changes_nothing_else(train, whole, parts, sends, moment):
    sends(USR1, *MOMENTS[moment][:-1])
    train("parts", *PLAIN, "Global.keep_checkpoint_max=99")
    assert end_of(parts) == [("finished", 0)]
    names = {path.name for path in checkpoints_in(parts)} - {"epoch_1", "epoch_2"}
    steps = {"in a step": 14, "too late for the step": 15, "before an image is read": 15}
    # From the last update of an epoch on, the epoch itself is what is saved.
    assert names == ({f"epoch_2_step_{steps[moment]}"} if moment in steps else set())
    assert_same_training(parts, whole(PLAIN))


@pytest.mark.promise("F06")
@pytest.mark.parametrize(
    ("settings", "moment", "place", "expected"),
    [
        # The update is made of batches 3 and 4; what the first of them added to the gradient would be lost.
        (ACCUMULATING, "step", (1, 3), "epoch_1_step_2"),
        (ACCUMULATING, "_update", (1, 4), "epoch_1_step_2"),
        (ACCUMULATING, "_share_statistics", (1, 10), "epoch_1_step_5"),
        (BY_EPOCH, "_update", (1, 10), "epoch_1_step_10"),
        (BY_EPOCH, "_update", (2, 1), "epoch_2_step_11"),
    ],
)
def test_a_signal_to_a_run_of_another_kind(train, whole, parts, sends, settings, moment, place, expected):
    sends(TERM, Trainer, moment, place)
    with pytest.raises(Stopped):
        train("parts", *settings)
    assert checkpoints_in(parts)[0].name == expected
    train("parts", *settings, AUTO)
    assert_same_training(parts, whole(settings))


def test_an_evaluation_can_be_left_again_and_again(train, whole, parts, sends):
    sends(TERM, CombinedMetric, "update", (1, 10), 3)
    with pytest.raises(Stopped):
        train("parts", *PLAIN)
    saved_then = toys.digests(parts / "epoch_1_step_10")
    # Continued there, it evaluates before it makes a step.
    sends(TERM, CombinedMetric, "update", None)
    with pytest.raises(Stopped):
        train("parts", *PLAIN, AUTO)
    assert [path.name for path in checkpoints_in(parts)] == ["epoch_1_step_10"]
    assert toys.digests(parts / "epoch_1_step_10") == saved_then
    train("parts", *PLAIN, AUTO)
    assert_same_training(parts, whole(PLAIN))
    assert (parts / "train.log").read_text().count("left before its end; it is done first") == 2


def test_where_a_checkpoint_is_due_anyway_it_is_written_once(train, parts, sends):
    sends(TERM, Trainer, "_update", (1, 4))
    with pytest.raises(Stopped):
        train("parts", *PLAIN, "Global.save_step_interval=2")
    assert (parts / "train.log").read_text().count(f"[Save][Epoch 1] {parts}/epoch_1_step_4\n") == 1


@pytest.mark.promise("F06")
@pytest.mark.parametrize("number", [TERM, INT])
def test_images_that_do_not_come_are_not_waited_for(train, parts, sends, whole, number):
    sends(number, BatchMaker, "__call__", (2, 3), then=wait_for_ever)
    with pytest.raises(Stopped):
        train("parts", *PLAIN)
    assert saved(parts) == "epoch_2_step_13"
    train("parts", *PLAIN, AUTO)
    assert_same_training(parts, whole(PLAIN))


@pytest.mark.promise("F06")
def test_workers_that_bring_no_images_are_not_waited_for(train, parts, monkeypatch, whole):
    make, parent = BatchMaker.__call__, os.getpid()

    def make_or_hang(self, positions, *more):
        if os.getpid() != parent and positions[0].epoch == 2 and len(self.dataset) == 40:
            os.kill(parent, TERM)
            wait_for_ever()
        return make(self, positions, *more)

    with monkeypatch.context() as patch:
        patch.setattr(BatchMaker, "__call__", make_or_hang)
        with pytest.raises(Stopped):
            train("parts", *PLAIN, "DataLoader.Train.loader.num_workers=2")
    saved(parts)
    train("parts", *PLAIN, AUTO)
    assert_same_training(parts, whole(PLAIN))


def test_before_the_first_update_there_is_nothing_to_save(train, parts, sends):
    sends(TERM, BatchMaker, "__call__", None)
    with pytest.raises(Stopped):
        train("parts", *PLAIN)
    assert checkpoints_in(parts) == []
    assert "before the first update: there is nothing to save" in (parts / "train.log").read_text()
    train("parts", *PLAIN, AUTO)
    assert end_of(parts) == [("finished", 0)]


def test_where_it_begins_to_train_nothing_is_waited_for(train, parts, sends):
    sends(TERM, Checkpointer, "start", None)
    with pytest.raises(Stopped):
        train("parts", *PLAIN)
    assert not (parts / "train.jsonl").exists()


def test_what_is_saved_already_is_not_saved_again(train, parts, sends):
    with pytest.raises(RuntimeError):
        train("parts", *PLAIN, "Global.save_step_interval=3", callbacks=[Fails("on_step_end", RuntimeError())])
    before = toys.digests(parts / "epoch_1_step_3")
    assert before
    sends(TERM, BatchMaker, "__call__", None)
    with pytest.raises(Stopped):
        train("parts", *PLAIN, AUTO)
    assert [path.name for path in checkpoints_in(parts)] == ["epoch_1_step_3"]


class Fails(Callback):
    """Raises an error at the fifth step, or at the end."""

    def __init__(self, event, error):
        self.event = event
        self.error = error

    def on_step_end(self, state, output):
        if self.event == "on_step_end" and state.step == 5:
            raise self.error

    def on_train_end(self, state):
        if self.event == "on_train_end":
            raise self.error


class Ends(Callback):
    def __init__(self):
        self.has_ended = False

    def on_train_end(self, state):
        self.has_ended = True


def test_of_several_errors_the_first_ends_the_training_and_all_callbacks_end(train, parts):
    first, late, last = ValueError("the first"), StorageError("a late one"), Ends()
    with pytest.raises(ValueError, match="the first"):
        train("parts", *PLAIN, callbacks=[Fails("on_train_end", late), Fails("on_step_end", first), last])
    assert last.has_ended
    assert "after ValueError: StorageError: a late one" in (parts / "train.log").read_text()


def test_an_error_at_the_end_of_a_training_is_raised_when_all_callbacks_have_ended(train, parts):
    errors, last = [StorageError("one"), StorageError("two")], Ends()
    with pytest.raises(StorageError, match="one"):
        train("parts", *PLAIN, callbacks=[*(Fails("on_train_end", error) for error in errors), last])
    assert last.has_ended
    assert "after StorageError: StorageError: two" in (parts / "train.log").read_text()


def test_a_signal_that_is_ignored_stays_so(train, parts, sends):
    signal.signal(INT, signal.SIG_IGN)
    try:
        sends(INT, Trainer, "_update", (1, 4))
        train("parts", *PLAIN)
        assert signal.getsignal(INT) == signal.SIG_IGN
    finally:
        signal.signal(INT, signal.default_int_handler)
    assert end_of(parts) == [("finished", 0)]


def test_outside_of_the_main_thread_signals_are_left_alone(train, parts):
    thread = threading.Thread(target=train, args=("parts", *PLAIN))
    thread.start()
    thread.join()
    assert end_of(parts) == [("finished", 0)]


def test_who_was_handling_a_signal_has_it_back(train, sends):
    heard = []
    before = signal.signal(USR1, lambda number, frame: heard.append(number))
    try:
        sends(USR1, Trainer, "_update", (1, 4))
        train("parts", *PLAIN)
        assert heard == []
        os.kill(os.getpid(), USR1)
        assert heard == [USR1]
    finally:
        signal.signal(USR1, before)
