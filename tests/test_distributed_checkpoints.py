# SPDX-License-Identifier: Apache-2.0
"""Two processes (gloo) continue from the same checkpoint or fail together, with and without a common disk."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import toys

TOYS = Path(toys.__file__).parent
ROOT = TOYS.parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where ``two_machines.py`` has run."""
    folder = tmp_path_factory.mktemp("two")
    config = toys.write_yaml(folder, toys.write_data(folder / "data"))
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PADDLE_", "CUDA_"))}
    launcher = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", "log"]
    finished = subprocess.run(
        [*launcher, str(TOYS / "two_machines.py"), str(config)],
        cwd=folder,
        env={**clean, "PYTHONPATH": f"{ROOT}{os.pathsep}{TOYS}"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    logs = "".join((folder / "log" / f"workerlog.{rank}").read_text()[-5000:] for rank in range(2))
    assert finished.returncode == 0, finished.stderr + logs
    return folder


@pytest.fixture(scope="module")
def told(folder):
    """How each training ended, for both processes."""
    both = [json.loads((folder / f"machine_{rank}" / "told.json").read_text()) for rank in range(2)]
    return {name: [told[name] for told in both] for name in both[0]}


def trained(directory):
    """What is the same in every process in the middle of an epoch too: all but running statistics of norms."""
    digests = toys.digests(directory)
    return {name: digests[name] for name in ("optimizer.safetensors", "state.json")}


def figures(directory, event):
    clock = {"time", "ips", "batch_cost", "reader_cost", "eta_seconds"}
    return {tuple((k, v) for k, v in record.items() if k not in clock) for record in toys.records(directory, event)}


def test_every_process_writes_the_same_checkpoints(folder, told):
    assert told["whole"] == [[2, 10], [2, 10]]
    first, second = folder / "machine_0" / "whole", folder / "machine_1" / "whole" / "rank_1"
    names = {path.name for path in first.glob("epoch_*")}
    assert names == {"epoch_1", "epoch_2", *(f"epoch_{1 + step // 5}_step_{step}" for step in (2, 4, 6, 8))}
    assert {path.name for path in second.iterdir() if path.is_dir()} == names
    for name in names:
        assert trained(first / name) == trained(second / name)
    for name in ("epoch_1", "epoch_2"):
        assert toys.digests(first / name) == toys.digests(second / name)


def test_the_newest_that_all_have_is_continued_to_the_bit(folder, told):
    assert told["one damaged"] == [[2, 10], [2, 10]]
    for rank, directory in enumerate((Path("parts"), Path("parts", "rank_1"))):
        whole = Path("whole", *directory.parts[1:])
        machine = folder / f"machine_{rank}"
        assert toys.digests(machine / directory / "epoch_2") == toys.digests(machine / whole / "epoch_2")
    log = (folder / "machine_0" / "parts" / "train.log").read_text()
    assert "process 1: parts/rank_1/epoch_2_step_8/model.safetensors: altered" in log
    assert "continuing from parts/epoch_2_step_6: 1 epochs and 1 batches of epoch 2, step 6 are done" in log


def test_the_means_of_a_continued_epoch_are_of_both_processes(folder):
    parts, whole = (folder / "machine_0" / name for name in ("parts", "whole"))
    assert figures(parts, "epoch") == figures(whole, "epoch")
    assert len(figures(whole, "epoch")) == 2


def test_a_process_that_has_no_checkpoint_ends_all_and_nothing_begins_anew(told):
    first, second = told["one lost"]
    assert first == second
    assert first[0] == "StorageError"
    assert (
        "none of the 1 checkpoints in lost can be used (process 1: lost/epoch_1_step_2: no such checkpoint" in first[1]
    )


def test_a_checkpoint_named_by_its_path_has_to_be_there_for_all(told):
    first, second = told["one lost, by name"]
    assert first[0] == second[0] == "StorageError"
    assert first[1].startswith("process 1: lost/epoch_1_step_2: no such checkpoint")


def test_a_checkpoint_of_another_run_is_not_the_same_checkpoint(told):
    first, second = told["one of another run"]
    assert first == second
    assert first[0] == "StorageError"
    assert "process 1: lost/epoch_1_step_2: not of the run that the first process continues" in first[1]


def test_a_process_that_cannot_write_ends_all(told):
    first, second = told["one cannot write"]
    assert (first[0], second[0]) == ("PeerError", "StorageError")
    assert first[1] == f"process 1: {second[1]}"
    assert "blocked/rank_1" in second[1]


@pytest.mark.promise("F13")
def test_a_process_that_can_write_no_more_ends_all_after_three_saves_and_none_waits(folder, told):
    first, second = told["one can write no more"]
    assert (first[0], second[0]) == ("PeerError", "StorageError")
    assert first[1].startswith("process 1: disturbed/rank_1") and "cannot be written (" in first[1]
    # Saved at the steps 2 and 4; not at 5, the end of the epoch, not at 6, not at 8.
    assert "; 3 saves in a row have failed; the last good checkpoint is disturbed/rank_1/epoch_1_step_4" in second[1]
    assert {path.name for path in (folder / "machine_0" / "disturbed").glob("epoch_2*")} == {
        "epoch_2_step_6",
        "epoch_2_step_8",
    }


def test_on_a_common_disk_all_read_what_the_first_wrote(folder, told):
    assert told["shared"] == [[2, 10], [2, 10]]
    shared = folder / "shared" / "parts"
    assert not (shared / "rank_1").exists()
    assert toys.digests(shared / "epoch_2") == toys.digests(folder / "machine_0" / "whole" / "epoch_2")
    assert "continuing from" in (shared / "train.log").read_text()
