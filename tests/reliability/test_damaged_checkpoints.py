# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that were cut off, altered, mixed up or removed: every damage is found, and the one before is used."""

import os
import random
import shutil

import numpy as np
import pytest
from small_run import FILES, SmallRun, put_back, seal, two_epochs

from ppcls.arch.pretrained import read_weights
from ppcls.engine.resume_point import find_checkpoint
from ppcls.engine.run_directory import Trust
from ppcls.utils.errors import StorageError
from ppcls.utils.storage import verify

pytestmark = pytest.mark.promise("F10")
TENSORS = FILES[:3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    two_epochs(folder / "run")
    two_epochs(folder / "other", seed=1)
    return folder


@pytest.fixture
def run(folder):
    """A run with the checkpoints epoch_1 and epoch_2; the second may be damaged, and is whole again afterwards."""
    with put_back(folder / "run" / "epoch_2"):
        yield folder / "run"
    assert verify(folder / "run" / "epoch_2")


@pytest.fixture
def found(run, caplog):
    """That the damage is found by each way to a checkpoint, and named; the one before is used."""

    def check(name="", where="epoch_2"):
        caplog.clear()
        assert find_checkpoint("auto", run) == run / "epoch_1"
        (warning,) = [record.getMessage() for record in caplog.records]
        assert warning.startswith(str(run / where / name).rstrip("/"))
        assert warning.endswith("; trying the one before it")
        assert "\n" not in warning
        assert find_checkpoint(f"{run}/latest", run / "elsewhere") == run / "epoch_1"
        with pytest.raises(StorageError) as caught:
            find_checkpoint(str(run / "epoch_2"), run)
        assert str(caught.value).startswith(warning.partition("; ")[0])
        assert str(caught.value).endswith(f"; the newest good one is {run / 'epoch_1'}")

    return check


def assert_not_trusted(directory):
    assert not Trust().has(directory)
    with pytest.raises(StorageError):
        read_weights(directory)


def trials(directory, number, seed):
    """Random places in the files of a checkpoint: every file as often, whatever its size."""
    draw = random.Random(seed)
    for trial in range(number):
        path = directory / FILES[trial % len(FILES)]
        content = path.read_bytes()
        yield path, content, draw.randrange(len(content)), draw.randrange(8)


def test_every_cut_is_found(run, found, times, counted):
    number = times(100, 2000)
    for path, content, place, _ in trials(run / "epoch_2", number, 10):
        path.write_bytes(content[:place])
        found(path.name)
        assert_not_trusted(run / "epoch_2")
        path.write_bytes(content)
    counted(number)


def test_every_flipped_bit_is_found(run, found, times, counted):
    number = times(200, 10_000)
    for path, content, place, bit in trials(run / "epoch_2", number, 20):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
        found(path.name)
        assert_not_trusted(run / "epoch_2")
        path.write_bytes(content)
    counted(number)


def test_every_place_of_the_manifest_counts(run, times, counted):
    path = run / "epoch_2" / "manifest.json"
    content = path.read_bytes()
    bits = range(times(1, 8))
    for place in range(len(content)):
        for bit in [(place + bit) % 8 for bit in bits]:
            path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
            # A size or digest that is another is found at the file, which then is not what the manifest says.
            with pytest.raises(StorageError, match="epoch_2/"):
                verify(run / "epoch_2")
    counted(len(content) * len(bits))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["gone", "empty", "longer", "a folder", "a link", "a pipe", "zeros"])
def test_a_file_that_is_not_there_or_another_thing_is_found(run, found, name, damage, tmp_path):
    path = run / "epoch_2" / name
    content = path.read_bytes()
    path.unlink()
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "longer":
        path.write_bytes(content + b"\n")
    elif damage == "a folder":
        path.mkdir()
    elif damage == "a link":
        (tmp_path / name).write_bytes(content)
        path.symlink_to(tmp_path / name)
    elif damage == "a pipe":
        os.mkfifo(path)
    elif damage == "zeros":
        path.write_bytes(bytes(len(content)))
    if damage == "gone" and name == "manifest.json":
        found()
    else:
        found(name)
    assert_not_trusted(run / "epoch_2")


@pytest.mark.parametrize("source", ["run/epoch_1", "other/epoch_1", "other/epoch_2"])
@pytest.mark.parametrize("names", [*((name,) for name in FILES[:4]), *((name, FILES[4]) for name in FILES[:4])])
def test_files_of_another_checkpoint_are_found_with_its_manifest_and_without(folder, run, found, source, names):
    for name in names:
        shutil.copy(folder / source / name, run / "epoch_2" / name)
    found()
    assert_not_trusted(run / "epoch_2")


@pytest.mark.parametrize("source", ["run/epoch_1", "other/epoch_1"])
def test_a_whole_checkpoint_of_another_place_is_found(folder, run, found, source):
    for name in FILES:
        shutil.copy(folder / source / name, run / "epoch_2" / name)
    verify(run / "epoch_2")
    found()


def test_a_checkpoint_of_the_middle_of_an_epoch_is_not_that_of_its_end(tmp_path):
    run = SmallRun(tmp_path)
    run.advance()
    run.save(1)
    run.save(2, batch=2)
    (tmp_path / "epoch_2_step_6").rename(tmp_path / "epoch_2")
    assert find_checkpoint("auto", tmp_path) == tmp_path / "epoch_1"
    with pytest.raises(StorageError, match="epoch_2: holds epoch_2_step_6 and not what its name says; rename it"):
        find_checkpoint(str(tmp_path / "epoch_2"), tmp_path)


def test_two_files_that_changed_places_are_found(run, found):
    one, two = (run / "epoch_2" / name for name in ("model.safetensors", "ema.safetensors"))
    first, second = one.read_bytes(), two.read_bytes()
    assert len(first) == len(second)
    one.write_bytes(second)
    two.write_bytes(first)
    found("ema.safetensors")


@pytest.mark.parametrize("name", TENSORS)
def test_a_file_that_the_manifest_does_not_list_is_not_read(folder, tmp_path, name):
    shutil.copytree(folder / "run" / "epoch_2", tmp_path / "epoch_2")
    (tmp_path / "epoch_2" / name).unlink()
    seal(tmp_path / "epoch_2")
    shutil.copy(folder / "other" / "epoch_2" / name, tmp_path / "epoch_2" / name)
    with pytest.raises(StorageError, match="weights only|no averaged weights|does not list"):
        SmallRun(tmp_path).checkpointer.load("auto")


def test_what_is_used_instead_is_the_checkpoint_before_to_the_bit(folder, run):
    expected = SmallRun(folder / "run")
    assert expected.checkpointer.load(str(run / "epoch_1")).epoch == 1
    (run / "epoch_2" / "optimizer.safetensors").write_bytes(b"")
    loaded = SmallRun(folder / "run")
    assert loaded.checkpointer.load("auto").epoch == 1
    assert all(np.array_equal(array, loaded.tensors()[name]) for name, array in expected.tensors().items())


def test_where_all_are_damaged_nothing_begins_anew(folder, tmp_path):
    shutil.copytree(folder / "run", tmp_path, dirs_exist_ok=True)
    for name in ("epoch_1", "epoch_2"):
        (tmp_path / name / "model.safetensors").write_bytes(b"")
    with pytest.raises(
        StorageError, match="none of the 2 checkpoints in .* can be used .*epoch_2/model.safetensors: cut off"
    ):
        SmallRun(tmp_path).checkpointer.start("auto")
    assert {path.name for path in tmp_path.iterdir()} == {"epoch_1", "epoch_2"}
