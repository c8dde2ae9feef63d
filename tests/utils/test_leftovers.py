# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys

import pytest

from ppcls.utils.leftovers import clear_after_the_dead, clear_unfinished
from ppcls.utils.storage import published


def write(final, **files):
    with published(final, "thing") as directory:
        for name, content in files.items():
            (directory / name).write_bytes(content)


def leave(directory, name, **files):
    """As a process that was killed leaves it."""
    write(directory / "whole", **files)
    (directory / "whole").rename(directory / name)


def test_what_killed_processes_left_is_cleared_and_nothing_else(tmp_path):
    leave(tmp_path, "epoch_1", model=b"1")
    leave(tmp_path, ".epoch_1.old-12", model=b"0")
    leave(tmp_path, ".inference.partial-12", model=b"0")
    (tmp_path / ".epoch_2.partial-345").mkdir()
    (tmp_path / ".epoch_2.partial-345" / "model").write_bytes(b"half")
    for name in (".write-probe-12", ".epoch_2.partial", "epoch_2.old-1", ".lock"):
        (tmp_path / name).write_bytes(b"")
    gone = clear_unfinished(tmp_path, lambda name: name.startswith("epoch_"))
    assert gone == [".epoch_1.old-12", ".epoch_2.partial-345"]
    kept = {"epoch_1", ".inference.partial-12", ".epoch_2.partial", "epoch_2.old-1", ".lock"}
    assert {path.name for path in tmp_path.iterdir()} == kept
    assert (tmp_path / "epoch_1" / "model").read_bytes() == b"1"


def test_what_stepped_aside_for_a_successor_that_never_came_is_put_back(tmp_path):
    leave(tmp_path, ".best.old-12", model=b"best")
    (tmp_path / ".best.partial-12").mkdir()
    clear_unfinished(tmp_path, lambda name: name == "best")
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert (tmp_path / "best" / "model").read_bytes() == b"best"


def test_a_removal_that_was_cut_off_is_completed(tmp_path):
    leave(tmp_path, ".epoch_1.gone-12", model=b"1")
    leave(tmp_path, ".epoch_2.old-12", model=b"1", state=b"2")
    (tmp_path / ".epoch_2.old-12" / "state").unlink()
    clear_unfinished(tmp_path, lambda name: True)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def dead():
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_what_the_dead_left_of_one_directory_is_cleared_and_nothing_else(tmp_path, dead):
    for name in ("bundle", f".bundle.old-{dead}", f".bundle.partial-{dead}", f".bundle.gone-{dead}"):
        leave(tmp_path, name, model=name.encode())
    kept = {f".bundle.partial-{os.getppid()}", f".bundle2.partial-{dead}", f"bundle.partial-{dead}", ".write-probe-12"}
    for name in kept:
        leave(tmp_path, name, model=b"other")
    clear_after_the_dead(tmp_path / "bundle")
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", *kept}
    assert (tmp_path / "bundle" / "model").read_bytes() == b"bundle"


def test_what_stepped_aside_before_its_process_died_is_put_back(tmp_path, dead):
    leave(tmp_path, f".bundle.old-{dead}", model=b"1")
    leave(tmp_path, f".bundle.partial-{dead}", model=b"2")
    clear_after_the_dead(tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert (tmp_path / "bundle" / "model").read_bytes() == b"1"


def test_half_of_what_had_stepped_aside_is_not_put_back(tmp_path, dead):
    leave(tmp_path, f".bundle.old-{dead}", model=b"1")
    (tmp_path / f".bundle.old-{dead}" / "model").write_bytes(b"")
    clear_after_the_dead(tmp_path / "bundle")
    clear_after_the_dead(tmp_path / "nowhere" / "bundle")
    assert list(tmp_path.iterdir()) == []
