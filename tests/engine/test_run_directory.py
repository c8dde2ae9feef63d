# SPDX-License-Identifier: Apache-2.0
"""Names and order of checkpoints, and which of them are kept."""

import pytest

from ppcls.engine import run_directory
from ppcls.engine.run_directory import Trust, checkpoints_in, name_of, newest_first, place_of, prune
from ppcls.utils.storage import published

ORDER = ["epoch_1_step_4", "epoch_1", "epoch_2_step_9", "epoch_2_step_10", "epoch_2", "epoch_10_step_91", "epoch_10"]


def make(directory, *names):
    for name in names:
        with published(directory / name, "checkpoint") as partial:
            (partial / "model.safetensors").write_text(name)


def names_in(directory):
    return {path.name for path in directory.iterdir()}


def test_half_a_record_of_a_run_that_was_killed_is_cleared_away(tmp_path):
    for name in ("config.yaml", ".config.yaml.partial-12", ".notes.partial-12"):
        (tmp_path / name).write_text("")
    run_directory.clear(tmp_path)
    assert names_in(tmp_path) == {"config.yaml", ".notes.partial-12"}


def test_checkpoints_are_ordered_by_progress():
    assert newest_first(sorted(ORDER)) == ORDER[::-1]


@pytest.mark.parametrize("name", ORDER)
def test_a_name_says_its_place(name):
    assert name_of(place_of(name)) == name


@pytest.mark.parametrize("name", ["epoch_", "epoch_1.backup", "epoch_1_step_", "epoch_best", "best_model", "xepoch_1"])
def test_other_names_have_no_place(name):
    assert place_of(name) is None
    assert newest_first([name]) == []


def test_the_newest_two_and_whole_epochs_by_interval_are_kept(tmp_path):
    make(tmp_path, *ORDER, "epoch_4", "epoch_4_step_31", "best_model")
    prune(tmp_path, tmp_path / "epoch_10", 2, None, Trust())
    assert names_in(tmp_path) == {"epoch_2", "epoch_4", "epoch_10_step_91", "epoch_10", "best_model"}


@pytest.mark.parametrize("keep_max", [1, 2, 4, 100])
@pytest.mark.parametrize("save_interval", [0, 1])
def test_as_many_as_asked_for_are_kept_whatever_the_interval(tmp_path, keep_max, save_interval):
    make(tmp_path, *ORDER, "best_model")
    prune(tmp_path, tmp_path / "epoch_10", save_interval, keep_max, Trust())
    assert names_in(tmp_path) == {"best_model", *ORDER[-keep_max:]}


def test_a_damaged_checkpoint_does_not_count_among_those_to_keep(tmp_path):
    make(tmp_path, *ORDER)
    (tmp_path / "epoch_2" / "model.safetensors").write_text("other")
    prune(tmp_path, tmp_path / "epoch_10", 1, 3, Trust())
    assert names_in(tmp_path) == {"epoch_2_step_10", "epoch_2", "epoch_10_step_91", "epoch_10"}


def test_what_comes_after_the_newest_of_this_run_is_left_alone(tmp_path):
    make(tmp_path, *ORDER)
    prune(tmp_path, tmp_path / "epoch_2_step_10", 0, 1, Trust())
    assert [path.name for path in checkpoints_in(tmp_path)] == ORDER[:2:-1]


def test_what_verified_is_not_read_again_until_it_changes(tmp_path, monkeypatch):
    make(tmp_path, "epoch_1", "epoch_2")
    read = []

    def counted(path):
        read.append(path.name)
        return verify(path)

    verify = run_directory.verify
    monkeypatch.setattr(run_directory, "verify", counted)
    trust = Trust()
    trust.give(tmp_path / "epoch_2")
    for _ in range(3):
        assert trust.has(tmp_path / "epoch_1")
        assert trust.has(tmp_path / "epoch_2")
    assert read == ["epoch_1"]
    (tmp_path / "epoch_2" / "model.safetensors").write_text("of another size")
    assert not trust.has(tmp_path / "epoch_2")
    assert not trust.has(tmp_path / "epoch_2")
    assert read == ["epoch_1", "epoch_2", "epoch_2"]
