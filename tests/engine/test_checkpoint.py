# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: whole, verified, enough to continue, and never the last good one removed."""

import json
import logging
import re
import resource
import shutil

import numpy as np
import paddle
import pytest
import toys
from paddle import nn
from safetensors.numpy import load_file

from ppcls.engine.checkpoint import Checkpointer, MovingParts, Pace
from ppcls.engine.ema import ModelEMA
from ppcls.engine.precision import Precision
from ppcls.engine.run_directory import newest_valid
from ppcls.engine.trainer import TrainState
from ppcls.optimizer.schedule import Piecewise
from ppcls.utils.errors import ConfigError, DataError, StorageError
from ppcls.utils.storage import verify

PACE = Pace(updates_per_epoch=2, batches_per_update=1, images_per_update=8)


def net(width=4):
    return nn.Sequential(nn.Conv2D(3, width, 3), nn.BatchNorm2D(width), nn.Flatten(), nn.Linear(4 * width, 3))


def momentum(rate, parameters):
    return paddle.optimizer.Momentum(rate, 0.9, parameters)


def adam(rate, parameters):
    return paddle.optimizer.Adam(rate, parameters=parameters)


def adamw(rate, parameters):
    return paddle.optimizer.AdamW(rate, parameters=parameters, weight_decay=0.1)


class Run:
    """A model with its optimizer, schedule and average, and steps on noise."""

    def __init__(self, directory, build=momentum, width=4, with_ema=True, pace=PACE, class_names=None, **keeping):
        self.model = net(width)
        self.schedule = Piecewise(10, 2, [1, 2], [0.1, 0.01, 0.001])
        self.optimizer = build(self.schedule, self.model.parameters())
        ema = ModelEMA(self.model, 0.9) if with_ema else None
        self.parts = MovingParts(self.model, self.optimizer, self.schedule, Precision(), ema)
        keeping = {"save_interval": 0, **keeping}
        description = {"arch": "net", "class_names": class_names}
        self.checkpointer = Checkpointer(directory, self.parts, pace, **keeping, description=description)

    def step(self, number):
        rng = np.random.RandomState(number)
        images = paddle.to_tensor(rng.standard_normal([8, 3, 4, 4]).astype("float32"))
        self.model(images).square().mean().backward()
        self.optimizer.step()
        self.optimizer.clear_grad()
        self.schedule.step()
        if self.parts.ema:
            self.parts.ema.update(self.model)

    def everything(self):
        tensors = {f"model {name}": tensor.numpy() for name, tensor in self.model.state_dict().items()}
        if self.parts.ema:
            tensors.update({f"ema {name}": t.numpy() for name, t in self.parts.ema.model.state_dict().items()})
        return tensors


def save(run, epoch, **state):
    run.checkpointer.save(TrainState(epoch=epoch, step=10 * epoch, **state))


def damage(path, how):
    if how == "cut off":
        with open(path, "r+b") as file:
            file.truncate(path.stat().st_size // 2)
    elif how == "flipped":
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()


@pytest.mark.parametrize("build", [momentum, adam, adamw])
def test_a_restored_run_continues_to_the_bit(tmp_path, build):
    first = Run(tmp_path, build)
    for number in range(3):
        first.step(number)
    save(first, 1, best=0.5, best_epoch=1, metrics={"top1": 0.5})
    net(), net()  # the internal names of what comes now are others
    second = Run(tmp_path, build)
    state = second.checkpointer.load("auto")
    assert (state.epoch, state.step, state.best, state.best_epoch) == (1, 10, 0.5, 1)
    assert state.metrics == {"top1": 0.5}
    assert second.schedule.last_epoch == 3
    for number in range(3, 6):
        first.step(number)
        second.step(number)
    expected = first.everything()
    assert all(np.array_equal(value, expected[name]) for name, value in second.everything().items())
    assert second.optimizer.get_lr() == first.optimizer.get_lr()


def test_the_restored_state_matters(tmp_path):
    first = Run(tmp_path)
    for number in range(3):
        first.step(number)
    save(first, 1)
    second = Run(tmp_path)
    second.checkpointer.load("auto")
    second.optimizer.set_state_dict({"LR_Scheduler": second.schedule.state_dict()})
    for run in (first, second):
        run.step(3)
    assert not np.array_equal(first.model[3].weight.numpy(), second.model[3].weight.numpy())


def test_files_hold_structured_names_and_no_pickle(tmp_path):
    run = Run(tmp_path, adam)
    run.step(0)
    save(run, 1)
    path = tmp_path / "epoch_1"
    names = set(run.model.state_dict())
    assert set(load_file(path / "model.safetensors")) == names
    assert set(load_file(path / "ema.safetensors")) == names
    stored = load_file(path / "optimizer.safetensors")
    trained = {name for name, parameter in run.model.named_parameters() if not parameter.stop_gradient}
    assert {key.rpartition("/")[0] for key in stored} == trained
    kinds = {key.rpartition("/")[2] for key in stored}
    assert {re.sub(r"_\d+$", "", kind) for kind in kinds} == {"moment1", "moment2", "beta1_pow_acc", "beta2_pow_acc"}
    files = {"manifest.json", "state.json", "model.safetensors", "optimizer.safetensors", "ema.safetensors"}
    assert {file.name for file in path.iterdir()} == files
    for file in path.iterdir():
        assert not file.read_bytes().startswith(b"\x80")  # how a pickle begins


@pytest.mark.parametrize("how", ["cut off", "flipped", "missing"])
@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_file_is_named_and_the_previous_checkpoint_used(tmp_path, caplog, how, file):
    run = Run(tmp_path)
    run.step(0)
    save(run, 1)
    expected = run.everything()
    run.step(1)
    save(run, 2)
    damage(tmp_path / "epoch_2" / file, how)
    for source in ("auto", str(tmp_path / "latest")):
        caplog.clear()
        other = Run(tmp_path)
        assert other.checkpointer.load(source).epoch == 1
        warning = next(record for record in caplog.records if record.levelno == logging.WARNING)
        assert str(tmp_path / "epoch_2" / file) in warning.getMessage()
        assert all(np.array_equal(value, expected[name]) for name, value in other.everything().items())


def test_a_checkpoint_without_manifest_is_passed_over(tmp_path):
    run = Run(tmp_path)
    save(run, 1)
    save(run, 2)
    (tmp_path / "epoch_2" / "manifest.json").unlink()
    assert Run(tmp_path).checkpointer.load("auto").epoch == 1


def test_a_damaged_checkpoint_named_explicitly_is_refused_with_advice(tmp_path):
    run = Run(tmp_path)
    save(run, 1)
    save(run, 2)
    damage(tmp_path / "epoch_2" / "model.safetensors", "cut off")
    before = Run(tmp_path)
    expected = before.everything()
    with pytest.raises(StorageError, match=rf"model\.safetensors: cut off .*newest good one is {tmp_path}/epoch_1"):
        before.checkpointer.load(str(tmp_path / "epoch_2"))
    assert all(np.array_equal(value, expected[name]) for name, value in before.everything().items())


def test_auto_without_any_checkpoint_starts_fresh_and_says_so(tmp_path, caplog):
    caplog.set_level(logging.INFO, "ppcls")
    assert Run(tmp_path).checkpointer.load("auto") == TrainState()
    assert "no checkpoint" in caplog.text
    assert "starting from the beginning" in caplog.text


def test_auto_with_only_damaged_checkpoints_does_not_start_over(tmp_path):
    run = Run(tmp_path)
    save(run, 1)
    damage(tmp_path / "epoch_1" / "state.json", "flipped")
    with pytest.raises(
        StorageError, match="none of the 1 checkpoints in .* can be used .*state.json: altered.*; move them"
    ):
        Run(tmp_path).checkpointer.load("auto")


@pytest.mark.parametrize("name", ["nowhere", "latest"])
def test_a_checkpoint_that_is_not_there_is_refused(tmp_path, name):
    with pytest.raises(StorageError, match="no such checkpoint|there is no checkpoint"):
        Run(tmp_path).checkpointer.load(str(tmp_path / name))


def test_another_architecture_is_refused_with_counts_in_one_line(tmp_path):
    run = Run(tmp_path)
    run.step(0)
    save(run, 1)
    other = Run(tmp_path, width=5)
    expected = other.everything()
    with pytest.raises(StorageError) as caught:
        other.checkpointer.load(str(tmp_path / "epoch_1"))
    # conv weight and bias, four of the batch norm and the linear weight have the width in their shape
    assert re.search(r"1 matched, 0 missing, 0 unexpected, 7 of another shape", str(caught.value))
    assert "\n" not in str(caught.value)
    assert all(np.array_equal(value, expected[name]) for name, value in other.everything().items())


def test_another_optimizer_is_refused_by_name(tmp_path):
    run = Run(tmp_path, momentum)
    run.step(0)
    save(run, 1)
    with pytest.raises(StorageError, match="was trained with Momentum, not Adam; .*Global.pretrained_model"):
        Run(tmp_path, adam).checkpointer.load("auto")


def test_an_average_that_the_checkpoint_lacks_is_refused(tmp_path):
    save(Run(tmp_path, with_ema=False), 1)
    with pytest.raises(StorageError, match="has no averaged weights; remove the EMA section"):
        Run(tmp_path).checkpointer.load("auto")


def test_an_average_that_is_not_continued_is_warned_about(tmp_path, caplog):
    save(Run(tmp_path), 1)
    assert Run(tmp_path, with_ema=False).checkpointer.load("auto").epoch == 1
    assert "EMA" in caplog.text


def test_best_weights_are_the_averaged_ones_and_cannot_be_continued(tmp_path):
    run = Run(tmp_path)
    run.step(0)
    run.checkpointer.save_best(TrainState(epoch=1, best=0.25, best_epoch=1))
    stored = load_file(tmp_path / "best_model" / "model.safetensors")
    averaged = {name: tensor.numpy() for name, tensor in run.parts.ema.model.state_dict().items()}
    assert all(np.array_equal(value, averaged[name]) for name, value in stored.items())
    assert json.loads((tmp_path / "best_model" / "state.json").read_text())["best"] == {"value": 0.25, "epoch": 1}
    with pytest.raises(StorageError, match="holds weights only; start from it with Global.pretrained_model"):
        run.checkpointer.load(str(tmp_path / "best_model"))


@pytest.mark.parametrize(
    ("save_interval", "kept"), [(0, [6, 7]), (1, [1, 2, 3, 4, 5, 6, 7]), (3, [3, 6, 7]), (4, [4, 6, 7])]
)
def test_pruning_keeps_multiples_of_the_interval_and_the_newest_two(tmp_path, save_interval, kept):
    run = Run(tmp_path, save_interval=save_interval)
    for epoch in range(1, 8):
        save(run, epoch)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"epoch_{epoch}" for epoch in kept]


def test_pruning_does_not_count_a_damaged_checkpoint(tmp_path):
    run = Run(tmp_path)
    save(run, 1)
    save(run, 2)
    damage(tmp_path / "epoch_2" / "model.safetensors", "flipped")
    save(run, 3)
    verify(tmp_path / "epoch_1")
    save(run, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch_3", "epoch_4"]


def test_pruning_leaves_what_is_not_its_own(tmp_path):
    run = Run(tmp_path)
    for name in ("epoch_best", "epoch_1.backup", "notes"):
        (tmp_path / name).mkdir()
    for epoch in (1, 2, 3):
        save(run, epoch)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"epoch_2", "epoch_3", "epoch_best", "epoch_1.backup", "notes"}


def test_a_save_that_does_not_fit_leaves_the_checkpoints_before_it(tmp_path):
    run = Run(tmp_path)
    save(run, 1)
    save(run, 2)
    before = toys.digests(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    try:
        with pytest.raises(StorageError, match="epoch_3: cannot be written .File too large"):
            save(run, 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert toys.digests(tmp_path) == before


def test_a_damaged_checkpoint_is_replaced_when_its_epoch_comes_again(tmp_path):
    run = Run(tmp_path)
    save(run, 1)
    save(run, 2)
    (tmp_path / "epoch_2" / "manifest.json").unlink()
    run.checkpointer.load("auto")
    save(run, 2)
    assert newest_valid(tmp_path) == tmp_path / "epoch_2"


def test_epochs_are_ordered_as_numbers(tmp_path):
    run = Run(tmp_path, save_interval=1)
    for epoch in (9, 10):
        save(run, epoch)
    assert newest_valid(tmp_path) == tmp_path / "epoch_10"


def test_a_checkpoint_can_be_moved_elsewhere(tmp_path):
    run = Run(tmp_path / "here")
    run.step(0)
    save(run, 1)
    shutil.move(tmp_path / "here" / "epoch_1", tmp_path / "there")
    other = Run(tmp_path / "new")
    assert other.checkpointer.load(str(tmp_path / "there")).epoch == 1


def epochs_in(directory):
    return sorted(path.name for path in directory.iterdir())


def test_a_fresh_start_sets_aside_what_an_earlier_run_left(tmp_path, caplog):
    earlier = Run(tmp_path)
    save(earlier, 1)
    save(earlier, 2)
    earlier.checkpointer.save_best(TrainState(epoch=2))
    state = Run(tmp_path).checkpointer.start(None)
    assert state.epoch == 0
    assert epochs_in(tmp_path) == ["earlier_1"]
    assert epochs_in(tmp_path / "earlier_1") == ["best_model", "epoch_1", "epoch_2"]
    assert "what an earlier run left there is now in earlier_1" in caplog.text


def test_continuing_from_the_middle_sets_aside_the_later_epochs(tmp_path):
    earlier = Run(tmp_path)
    for epoch in (1, 2, 3):
        save(earlier, epoch)
    Run(tmp_path).checkpointer.start(str(tmp_path / "epoch_2"))
    assert epochs_in(tmp_path / "earlier_1") == ["epoch_3"]
    assert newest_valid(tmp_path) == tmp_path / "epoch_2"


def test_continuing_from_the_newest_sets_nothing_aside(tmp_path):
    save(Run(tmp_path), 1)
    Run(tmp_path).checkpointer.start("auto")
    assert epochs_in(tmp_path) == ["epoch_1"]


def test_another_number_of_updates_in_an_epoch_is_refused(tmp_path):
    save(Run(tmp_path), 1)
    with pytest.raises(ConfigError, match="an epoch had 2 updates and has 4 now, so the learning rate would not fit"):
        Run(tmp_path, pace=Pace(4, 1, 8)).checkpointer.start("auto")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["ant", "bee"], r"'cow' \(1 such\) is gone; make them the same"),
        (["ant", "bee", "cow", "dog", "emu"], r"'dog' \(2 such\) is new; make"),
        (["ant", "dog", "emu"], r"'bee' \(2 such\) is gone, 'dog' \(2 such\) is new; make"),
        (["ant", "cow", "bee"], "class 1 was 'bee' and is 'cow'; make"),
    ],
)
def test_other_classes_than_the_checkpoint_s_are_refused(tmp_path, names, message):
    save(Run(tmp_path, class_names=["ant", "bee", "cow"]), 1)
    with pytest.raises(DataError, match=message):
        Run(tmp_path, class_names=names).checkpointer.start("auto")


@pytest.mark.parametrize(("before", "now"), [(["ant", "bee"], ["ant", "bee"]), (["ant"], None), (None, ["ant"])])
def test_the_same_classes_and_unknown_ones_are_continued(tmp_path, before, now):
    save(Run(tmp_path, class_names=before), 1)
    assert Run(tmp_path, class_names=now).checkpointer.start("auto").epoch == 1


def test_best_weights_of_an_abandoned_branch_are_set_aside(tmp_path):
    earlier = Run(tmp_path)
    save(earlier, 1, best=0.5, best_epoch=1)
    save(earlier, 2)
    earlier.checkpointer.save_best(TrainState(epoch=2, best=0.7, best_epoch=2))
    state = Run(tmp_path).checkpointer.start(str(tmp_path / "epoch_1"))
    assert (state.best, state.best_epoch) == (None, 0)
    assert epochs_in(tmp_path / "earlier_1") == ["best_model", "epoch_2"]


def test_the_best_of_this_run_survives_a_resume(tmp_path):
    earlier = Run(tmp_path)
    earlier.checkpointer.save_best(TrainState(epoch=1, best=0.5, best_epoch=1))
    save(earlier, 1, best=0.5, best_epoch=1)
    save(earlier, 2, best=0.5, best_epoch=1)
    state = Run(tmp_path).checkpointer.start("auto")
    assert (state.epoch, state.best, state.best_epoch) == (2, 0.5, 1)
    assert (tmp_path / "best_model").is_dir()


def test_the_directory_of_checkpoints_is_answered_with_the_checkpoint_in_it(tmp_path):
    save(Run(tmp_path / "run"), 3)
    with pytest.raises(StorageError, match="the newest good one is .*run/epoch_3"):
        Run(tmp_path / "other").checkpointer.start(str(tmp_path / "run"))


def save_inside(run, epoch, batch, step, **state):
    run.checkpointer.save(TrainState(epoch=epoch, batch=batch, step=step, **state))


def test_a_checkpoint_in_the_middle_says_its_epoch_and_step_and_is_continued_there(tmp_path):
    first = Run(tmp_path)
    for number in range(3):
        first.step(number)
    sums = [{"names": ["loss", "top1"], "num_samples": 8, "seconds": 0.5, "parts": {"loss": 0.1 + 0.2}}]
    sums[0]["metric"] = [[1, 2]]
    save_inside(first, 2, 1, 3, sums=sums)
    assert epochs_in(tmp_path) == ["epoch_2_step_3"]
    second = Run(tmp_path)
    state = second.checkpointer.load("auto")
    assert (state.epoch, state.batch, state.step, state.epochs_done, state.sums) == (2, 1, 3, 1, sums)
    for run in (first, second):
        run.step(3)
    expected = first.everything()
    assert all(np.array_equal(value, expected[name]) for name, value in second.everything().items())


def test_the_newest_is_the_one_that_got_furthest(tmp_path):
    run = Run(tmp_path, keep_max=9)
    save(run, 1)
    save_inside(run, 2, 1, 11)
    assert Run(tmp_path).checkpointer.load("auto").epochs_done == 1
    assert Run(tmp_path).checkpointer.load("auto").batch == 1
    save(run, 2)
    assert Run(tmp_path).checkpointer.load("auto").epochs_done == 2


def test_a_damaged_one_in_the_middle_falls_back_to_the_one_before(tmp_path):
    run = Run(tmp_path, keep_max=9)
    save(run, 1)
    save_inside(run, 2, 1, 11)
    damage(tmp_path / "epoch_2_step_11" / "optimizer.safetensors", "cut off")
    state = Run(tmp_path).checkpointer.load("auto")
    assert (state.epoch, state.batch) == (1, 0)


def test_as_many_checkpoints_as_asked_for_are_kept(tmp_path):
    run = Run(tmp_path, save_interval=1, keep_max=3)
    for epoch in range(1, 4):
        save_inside(run, epoch, 1, 10 * epoch - 5)
        save(run, epoch)
    run.checkpointer.save_best(TrainState(epoch=1, best=1.0, best_epoch=1))
    assert epochs_in(tmp_path) == ["best_model", "epoch_2", "epoch_3", "epoch_3_step_25"]


def test_the_middle_of_an_epoch_is_found_again_with_other_batches_of_the_same_updates(tmp_path):
    # 4 updates of 16 images, 3 of them done: 6 batches of two processes were that, 3 batches of another split are.
    save_inside(Run(tmp_path, pace=Pace(4, 2, 16)), 1, 6, 3)
    assert Run(tmp_path, pace=Pace(4, 1, 16)).checkpointer.load("auto").batch == 3
    assert Run(tmp_path, pace=Pace(4, 4, 16)).checkpointer.load("auto").batch == 12


def test_updates_of_another_size_are_refused_in_the_middle_of_an_epoch_only(tmp_path):
    run = Run(tmp_path, pace=Pace(4, 1, 16))
    save(run, 1)
    assert Run(tmp_path, pace=Pace(4, 1, 15)).checkpointer.load("auto").epoch == 1
    save_inside(run, 2, 1, 5)
    with pytest.raises(ConfigError, match="left after updates of 16 images, and an update has 15 now"):
        Run(tmp_path, pace=Pace(4, 1, 15)).checkpointer.load("auto")


def test_continuing_in_the_middle_sets_aside_what_came_after_it(tmp_path):
    earlier = Run(tmp_path, keep_max=9)
    save(earlier, 1)
    earlier.checkpointer.save_best(TrainState(epoch=1, best=0.5, best_epoch=1))
    save_inside(earlier, 2, 1, 11, best=0.5, best_epoch=1)
    save_inside(earlier, 2, 2, 12, best=0.5, best_epoch=1)
    save(earlier, 2, best=0.7, best_epoch=2)
    state = Run(tmp_path).checkpointer.start(str(tmp_path / "epoch_2_step_11"))
    assert (state.best, state.best_epoch) == (0.5, 1)
    assert epochs_in(tmp_path / "earlier_1") == ["epoch_2", "epoch_2_step_12"]
    assert epochs_in(tmp_path) == ["best_model", "earlier_1", "epoch_1", "epoch_2_step_11"]


def test_best_weights_of_the_end_of_an_epoch_are_not_of_its_middle(tmp_path):
    earlier = Run(tmp_path, keep_max=9)
    save_inside(earlier, 2, 1, 11, best=0.5, best_epoch=1)
    earlier.checkpointer.save_best(TrainState(epoch=2, best=0.7, best_epoch=2))
    state = Run(tmp_path).checkpointer.start("auto")
    assert (state.best, state.best_epoch) == (None, 0)
    assert epochs_in(tmp_path / "earlier_1") == ["best_model"]
