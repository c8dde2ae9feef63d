# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint has to have in common with the training that goes on from it, whatever the files say."""

import json

import pytest
from small_run import SmallRun, seal

from ppcls.engine.checkpoint import Pace
from ppcls.utils.errors import ConfigError, DataError, StorageError


@pytest.fixture
def saved(tmp_path):
    run = SmallRun(tmp_path)
    run.advance()
    run.save(1)
    run.save(2, batch=2)
    return tmp_path


def test_a_schedule_that_counts_otherwise_is_refused(saved):
    run = SmallRun(saved)
    run.schedule.by_epoch = True
    with pytest.raises(ConfigError, match="the schedule counted updates and counts epochs now .by_epoch."):
        run.checkpointer.load("auto")


def test_weights_without_full_copies_do_not_go_on_as_small_ones(saved):
    run = SmallRun(saved)
    run.parts.precision.level = "O2"
    with pytest.raises(ConfigError, match="was trained with another AMP.level and goes on with O2, which would round"):
        run.checkpointer.load("auto")


def test_another_number_of_images_is_refused_within_an_epoch_only(saved, caplog):
    run = SmallRun(saved)
    run.checkpointer.pace = Pace(4, 1, 8, 33)
    with pytest.raises(DataError, match="the training set had 32 images and has 33 now"):
        run.checkpointer.load("auto")
    assert run.checkpointer.load(f"{saved}/epoch_1").epoch == 1
    assert "the training set had 32 images and has 33 now" in caplog.text


def test_a_state_without_a_schedule_is_refused(saved):
    path = saved / "epoch_1" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schedule": {}}))
    seal(saved / "epoch_1")
    with pytest.raises(StorageError, match="does not say how far its learning rate was, so it is not a checkpoint"):
        SmallRun(saved).checkpointer.load(f"{saved}/epoch_1")
