# SPDX-License-Identifier: Apache-2.0
"""A disk without space: what was saved stays whole, the message has the numbers, and training goes on as told."""

import errno
import os
import re
import resource

import numpy as np
import paddle
import pytest
import toys
from paddle import nn
from small_disk import PAGE, saved

from ppcls.engine.callbacks import VisualDLScalars
from ppcls.engine.checkpoint import Checkpointer, MovingParts, Pace
from ppcls.engine.ema import ModelEMA
from ppcls.engine.precision import Precision
from ppcls.engine.trainer import TrainState
from ppcls.optimizer.schedule import Constant
from ppcls.utils import storage
from ppcls.utils.errors import StorageError
from ppcls.utils.storage import verify

pytestmark = pytest.mark.promise("F09")
LIMITS = 20


class Saver:
    """Saves a net of 37 kB with its optimizer and average: more than 30 pages in five files."""

    def __init__(self, directory):
        self.directory = directory
        model = nn.Linear(96, 96)
        schedule = Constant(epochs=1, step_each_epoch=1, learning_rate=0.1)
        optimizer = paddle.optimizer.Momentum(schedule, 0.9, parameters=model.parameters())
        model(paddle.ones([1, 96])).sum().backward()
        optimizer.step()
        self.model = model
        parts = MovingParts(model, optimizer, schedule, Precision(), ModelEMA(model, 0.9))
        self.checkpointer = Checkpointer(directory, parts, Pace(1, 1, 1), save_interval=0)
        self.epoch = 0

    def save(self):
        self.epoch += 1
        self.model.bias.set_value(np.full([96], self.epoch, "float32"))
        self.checkpointer.save(TrainState(epoch=self.epoch, step=self.epoch))
        return self.directory / f"epoch_{self.epoch}"

    def assert_refused(self, *words):
        """A save fails, says so, and leaves everything as it was; give what the message says."""
        before = toys.digests(self.directory)
        names = sorted(path.name for path in self.directory.iterdir())
        with pytest.raises(StorageError) as caught:
            self.save()
        message = str(caught.value)
        assert message.startswith(f"{self.directory}/epoch_{self.epoch}: cannot be written (")
        assert "; nothing was changed" in message and "\n" not in message
        assert all(word in message for word in words)
        assert toys.digests(self.directory) == before
        assert sorted(path.name for path in self.directory.iterdir()) == names
        return message


def pages_of(directory):
    return sum(-(-path.stat().st_size // PAGE) for path in directory.iterdir())


@pytest.fixture
def limits(times):
    """So many limits out of as many as there are: some evenly spread, or all."""

    def choose(number):
        return sorted({*np.linspace(0, number - 1, min(times(LIMITS, number), number)).astype(int).tolist()})

    return choose


@pytest.mark.parametrize("knows", [True, False], ids=["known before", "found out"])
def test_too_little_space_leaves_what_is_there_and_the_next_save_works(disk, monkeypatch, counted, limits, knows):
    saver = Saver(disk.path / "run")
    saver.save()
    pages = pages_of(saver.save())
    asked = []

    def when_there_was_space(path):
        # Another program takes the space between this question and the writing.
        asked.append(path)
        return os.statvfs_result((PAGE, PAGE, 999, 999, 999, 9, 9, 9, 0, 255)) if len(asked) == 1 else statvfs(path)

    statvfs = os.statvfs
    tried = limits(pages)
    assert len(tried) >= LIMITS
    for limit in tried:
        disk.fill(leave=limit)
        if not knows:
            asked.clear()
            monkeypatch.setattr(os, "statvfs", when_there_was_space)
        message = saver.assert_refused("No space left on device")
        monkeypatch.setattr(os, "statvfs", statvfs)
        needed, free = (
            int(text.replace(",", "")) for text in re.findall(r"([\d,]+) (?:bytes are needed|are free)", message)
        )
        # The files, at most, and a page each for the directory and what rounding up costs.
        assert (pages - 1) * PAGE <= needed <= (pages + 3) * PAGE
        assert free == limit * PAGE
        disk.empty()
        verify(saver.save())
    counted(len(tried))


def test_a_limit_on_the_size_of_files_leaves_what_is_there_and_the_next_save_works(tmp_path, counted, limits):
    saver = Saver(tmp_path / "run")
    saver.save()
    largest = max(path.stat().st_size for path in saver.save().iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    tried = limits(largest)[:100]
    for limit in tried:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            saver.assert_refused("File too large")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        verify(saver.save())
    counted(len(tried))


@pytest.mark.parametrize("number", [errno.EIO, errno.EDQUOT, errno.ENOSPC])
@pytest.mark.parametrize("call", ["fsync", "replace", "mkdir"])
def test_what_the_system_refuses_leaves_what_is_there(tmp_path, monkeypatch, call, number):
    saver = Saver(tmp_path / "run")
    saver.save()
    saver.save()

    def refused(*arguments, **options):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refused)
        saver.assert_refused(os.strerror(number))
    verify(saver.save())


@pytest.mark.parametrize("refused_rename", [1, 2])
def test_best_weights_that_cannot_take_their_place_leave_the_former_ones(tmp_path, monkeypatch, refused_rename):
    saver = Saver(tmp_path / "run")
    saver.checkpointer.save_best(TrainState(epoch=1, best=0.5, best_epoch=1))
    before = toys.digests(tmp_path / "run")
    replace, calls = os.replace, []

    def refuse_one(*arguments):
        calls.append(arguments)
        if len(calls) == refused_rename:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        replace(*arguments)

    monkeypatch.setattr(storage, "exchange", lambda one, other: False)  # as on NFS
    monkeypatch.setattr(os, "replace", refuse_one)
    with pytest.raises(StorageError, match="best_model: cannot be written .Input/output error"):
        saver.checkpointer.save_best(TrainState(epoch=2, best=0.6, best_epoch=2))
    assert toys.digests(tmp_path / "run") == before
    verify(tmp_path / "run" / "best_model")


def test_training_goes_on_and_saves_again_when_there_is_space(disk, train, disturbed):
    whole = train("whole", "Global.epochs=4", "Global.save_interval=9")
    output = disk.path / "run"
    disturbed(output, "Global.epochs=4", "Global.save_interval=9", epoch_2=disk.fill, epoch_4=disk.empty)
    assert saved(output) == {"epoch_1", "epoch_4"}
    log = (output / "train.log").read_text()
    state = toys.digests(whole / "epoch_4")
    mine = toys.digests(output / "epoch_4")
    weights = [name for name in state if name.endswith(".safetensors")]
    assert [mine[name] for name in weights] == [state[name] for name in weights]
    best = "best_model/model.safetensors"
    assert toys.digests(output)[best] == toys.digests(whole)[best]
    # A page may have been left for a few lines; each line that is there is whole.
    assert toys.records(output, "exit")[-1]["reason"] == "finished"
    assert "lines so far are not in it" in log


def test_failures_are_told_with_their_number(disk, disturbed, capsys):
    disturbed(disk.path / "run", "Global.epochs=4", epoch_2=disk.fill, epoch_4=disk.empty)
    told = [line for line in capsys.readouterr().out.splitlines() if "[Save]" in line and "cannot be written" in line]
    assert len(told) == 2
    for number, (epoch, text) in enumerate(zip((2, 3), told), 1):
        # Better weights are written first.
        assert re.search(
            rf"\[Save\] {disk.path}/run/(epoch_{epoch}|best_model): cannot be written \(No space left", text
        )
        assert f"(failure {number}; 3 in a row end it)" in text


def test_three_failures_in_a_row_end_the_training_with_the_last_good_checkpoint_kept(disk, disturbed):
    output = disk.path / "run"
    with pytest.raises(
        StorageError, match=f"3 saves in a row have failed; the last good checkpoint is {output}/epoch_1"
    ):
        disturbed(output, "Global.epochs=9", epoch_2=disk.fill)
    assert saved(output) == {"epoch_1"}
    verify(output / "epoch_1")
    assert not list(output.glob(".*partial*"))


def test_a_training_told_to_stop_ends_with_the_first_failure(disk, disturbed):
    output = disk.path / "run"
    with pytest.raises(StorageError, match=r"\(No space left on device\).*; the last good checkpoint is .*/epoch_1$"):
        disturbed(output, "Global.epochs=9", "Global.on_save_error=stop", epoch_2=disk.fill)
    assert saved(output) == {"epoch_1"}


def test_a_training_whose_last_checkpoint_cannot_be_written_has_failed(disk, disturbed):
    output = disk.path / "run"
    with pytest.raises(StorageError, match=r"\(No space left on device\)") as caught:
        disturbed(output, "Global.epochs=2", epoch_2=disk.fill)
    assert caught.value.exit_code == 5
    disk.empty()
    disturbed(output, "Global.epochs=2", "Global.checkpoints=auto")
    assert saved(output) == {"epoch_1", "epoch_2"}


def test_curves_for_visualdl_end_on_a_full_disk_and_nothing_waits_for_them(disk):
    pytest.importorskip("visualdl")
    scalars = VisualDLScalars(disk.path / "vdl")
    scalars({"event": "train", "step": 1, "loss": 0.5})
    disk.fill()
    for step in range(2, 500):  # VisualDL keeps 10 in memory
        scalars({"event": "train", "step": step, "loss": 0.5})
    scalars.on_train_end(TrainState())
