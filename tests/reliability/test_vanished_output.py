# SPDX-License-Identifier: Apache-2.0
"""An output directory that cannot be written, or is gone all of a sudden."""

import os
import shutil

import pytest
import toys
from small_disk import saved

from ppcls.engine import Engine
from ppcls.utils.errors import StorageError
from ppcls.utils.storage import verify

pytestmark = pytest.mark.promise("F13")
WEIGHTS = ("epoch_4/model.safetensors", "epoch_4/optimizer.safetensors", "best_model/model.safetensors")


@pytest.fixture
def folder(tmp_path, request):
    """A folder that can be made read-only: for root, whom no permission stops, a disk of its own."""
    if os.geteuid() == 0:
        disk = request.getfixturevalue("disk")
        return disk.path, disk.make_read_only
    path = tmp_path / "folder"
    path.mkdir()
    return path, lambda is_read_only=True: [
        each.chmod(0o500 if is_read_only else 0o700) for each in (path, path / "run")
    ]


@pytest.fixture
def whole(train):
    return toys.digests(train("whole", "Global.epochs=4", "Global.save_interval=9"))


def assert_same_weights(output, whole):
    mine = toys.digests(output)
    assert [mine[name] for name in WEIGHTS] == [whole[name] for name in WEIGHTS]


def test_what_cannot_be_written_is_refused_before_anything_is_read(folder, toy_config):
    path, make_read_only = folder
    (path / "run").mkdir()
    make_read_only()
    engine = Engine(toy_config(f"Global.output_dir={path}/run", "Global.epochs=1"))
    with pytest.raises(
        StorageError, match=r"run: cannot be written \((Read-only file system|Permission denied)\)"
    ) as caught:
        engine.train()
    make_read_only(False)
    assert caught.value.exit_code == 5
    assert not {"train_loader", "eval_loader", "model"} & set(vars(engine.parts))


def test_a_directory_that_is_read_only_for_a_while_delays_its_checkpoints(folder, disturbed, whole):
    path, make_read_only = folder
    output = path / "run"
    settings = ("Global.epochs=4", "Global.save_interval=9")
    disturbed(output, *settings, epoch_2=make_read_only, epoch_4=lambda: make_read_only(False))
    assert saved(output) == {"epoch_1", "epoch_4"}
    assert_same_weights(output, whole)
    # The first line that can be written again tells how many could not.
    assert "lines so far are not in it" in (output / "train.log").read_text()
    assert toys.records(output, "exit")[-1]["reason"] == "finished"


def test_a_directory_that_stays_read_only_ends_the_training_with_the_last_good_checkpoint_kept(folder, disturbed):
    path, make_read_only = folder
    output = path / "run"
    with pytest.raises(
        StorageError, match=f"3 saves in a row have failed; the last good checkpoint is {output}/epoch_1"
    ):
        disturbed(output, "Global.epochs=9", epoch_2=make_read_only)
    make_read_only(False)
    assert saved(output) == {"epoch_1"}
    verify(output / "epoch_1")
    verify(output / "best_model")


def test_a_directory_that_vanishes_is_made_again_and_filled(tmp_path, disturbed, whole):
    output = tmp_path / "run"
    disturbed(output, "Global.epochs=4", "Global.save_interval=9", epoch_3=lambda: shutil.rmtree(output))
    assert saved(output) == {"epoch_3", "epoch_4"}
    assert_same_weights(output, whole)
    assert f"{output}: was removed while this run wrote there" in (output / "train.log").read_text()
    assert [record["epoch"] for record in toys.records(output, "epoch")] == [3, 4]
    assert toys.records(output, "exit")[-1]["reason"] == "finished"


def test_a_directory_that_cannot_be_made_again_ends_the_training(tmp_path, disturbed):
    output = tmp_path / "run"

    def take_the_place():
        shutil.rmtree(output)
        output.write_text("somebody's")

    with pytest.raises(StorageError, match="3 saves in a row have failed"):
        disturbed(output, "Global.epochs=9", epoch_2=take_the_place)
    assert output.read_text() == "somebody's"
