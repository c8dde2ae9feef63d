# SPDX-License-Identifier: Apache-2.0
"""Asked to go on where there is nothing, or where another run was: said so, and nothing begins in its place."""

import shutil

import pytest
import toys

from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.utils.errors import ConfigError, StorageError
from ppcls.utils.logger import stop_logging

pytestmark = pytest.mark.promise("F08")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nothing")
    toys.write_yaml(folder, toys.write_data(folder / "data"))
    return folder


@pytest.fixture(scope="module")
def train(folder):
    def run(name, *overrides):
        output = folder / name
        try:
            Engine(load_config(folder / "toy.yaml", [f"Global.output_dir={output}", *overrides])).train()
        finally:
            stop_logging()
        return output

    return run


@pytest.fixture(scope="module")
def trained(train):
    """A run of one epoch that is over."""
    return train("trained", "Global.epochs=1")


def refused(train, kind, source, output, *overrides):
    """The message, of one line, of a run that does not begin."""
    with pytest.raises(kind) as caught:
        train(output, f"Global.checkpoints={source}", *overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def left(folder):
    return {path.name for path in folder.iterdir()} - {"train.log", ".lock"}


ADVICE = "there is no good one beside it: leave Global.checkpoints out, or write auto, to start from the beginning"


def test_a_checkpoint_that_is_not_there(train, folder):
    message = refused(train, StorageError, "/nowhere/epoch_7", "a")
    assert message == "/nowhere/epoch_7: no such checkpoint; give a directory such as output/epoch_5, or 'auto'"
    assert left(folder / "a") == set()


def test_a_file_of_a_checkpoint(train, folder):
    (folder / "epoch_1").mkdir()
    (folder / "epoch_1" / "model.safetensors").write_text("")
    message = refused(train, StorageError, f"{folder}/epoch_1/model.safetensors", "of_file")
    directory = f"{folder}/epoch_1"
    assert (
        message == f"{directory}/model.safetensors: this is a file; give the directory of the checkpoint, {directory}"
    )


def test_the_latest_where_there_is_none(train, folder):
    (folder / "empty").mkdir()
    message = refused(train, StorageError, f"{folder}/empty/latest", "b")
    assert message == f"{folder}/empty/latest: there is no checkpoint in {folder}/empty"
    assert left(folder / "b") == set()


def test_a_folder_that_is_no_checkpoint(train, folder):
    (folder / "bare").mkdir()
    message = refused(train, StorageError, folder / "bare", "c")
    assert message.startswith(f"{folder}/bare: not complete, it has no manifest.json; ")
    assert left(folder / "c") == set()


def test_the_folder_of_a_run_instead_of_a_checkpoint_in_it(train, folder, trained):
    message = refused(train, StorageError, trained, "d")
    assert message.endswith(f"; the newest good one is {trained}/epoch_1")


def test_a_folder_beside_which_there_is_no_checkpoint_either(train, tmp_path):
    (tmp_path / "bare").mkdir()
    assert refused(train, StorageError, tmp_path / "bare", "e").endswith(f"; {ADVICE}")


def test_best_weights_instead_of_a_checkpoint(train, trained):
    message = refused(train, StorageError, trained / "best_model", "f")
    assert "holds weights only; start from it with Global.pretrained_model instead" in message


def test_auto_in_an_empty_folder_starts_from_the_beginning_and_says_so(train, trained):
    output = train("g", "Global.checkpoints=auto", "Global.epochs=1")
    log = (output / "train.log").read_text()
    assert f"checkpoints: auto: no checkpoint in {output} yet, starting from the beginning" in log
    assert toys.digests(output / "epoch_1") == toys.digests(trained / "epoch_1")


def test_auto_where_another_run_was(train, folder, trained):
    shutil.copytree(trained, folder / "h")
    before = toys.digests(folder / "h")
    message = refused(train, ConfigError, "auto", "h", "Arch.width=5")
    assert message.startswith(f"{folder}/h/epoch_1: Arch.width: 8 -> 5: ")
    after = toys.digests(folder / "h")
    assert {name: after[name] for name in before if name != "train.log"} == {
        name: before[name] for name in before if name != "train.log"
    }


def test_the_checkpoint_of_another_run(train, trained):
    message = refused(train, ConfigError, trained / "epoch_1", "i", "Arch.class_num=5")
    assert message.startswith(f"{trained}/epoch_1: Arch.class_num: 4 -> 5: the weights in the checkpoint are those of")


def test_a_run_that_is_over_has_nothing_to_do(train, folder, trained):
    shutil.copytree(trained, folder / "j")
    before = toys.digests(folder / "j" / "epoch_1")
    output = train("j", "Global.checkpoints=auto", "Global.epochs=1")
    assert "nothing to do: 1 of 1 epochs are done" in (output / "train.log").read_text()
    assert toys.digests(output / "epoch_1") == before
