# SPDX-License-Identifier: Apache-2.0
"""One output directory, two runs: the second is refused at once; a run that is dead holds nothing."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import toys

from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.utils.errors import StorageError
from ppcls.utils.lock import LOCK, held
from ppcls.utils.logger import stop_logging

pytestmark = pytest.mark.promise("F12")
TOYS = Path(toys.__file__).parent
MAX_SECONDS = 1.0


class Holder:
    """Other processes that hold directories."""

    def __init__(self):
        command = [sys.executable, str(TOYS / "holder.py")]
        environment = {**os.environ, "PYTHONPATH": str(TOYS.parents[1])}
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.pids = []

    def __call__(self, word, argument):
        self.process.stdin.write(f"{word} {argument}\n")
        answer = self.process.stdout.readline().strip()
        if answer.isdecimal():
            self.pids.append(int(answer))
        return answer

    def end(self):
        for pid in self.pids:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(60)


@pytest.fixture(scope="module")
def holder():
    holder = Holder()
    yield holder
    holder.end()


@pytest.fixture
def train(tmp_path, toy_data):
    path = toys.write_yaml(tmp_path, toy_data)

    def run(*overrides):
        # The configuration is read by now.
        config = load_config(path, [f"Global.output_dir={tmp_path / 'run'}", "Global.epochs=1", *overrides])
        started = time.process_time()
        try:
            Engine(config).train()
        finally:
            stop_logging()
            run.seconds = time.process_time() - started
        return tmp_path / "run"

    return run


def assert_held(directory, holder_pid):
    with pytest.raises(StorageError, match=f"another run is writing there .process {holder_pid} on "), held(directory):
        pass


def test_the_second_run_is_refused_before_it_opens_its_images(holder, train, tmp_path):
    output = tmp_path / "run"
    output.mkdir()
    (output / "train.log").write_text("of the first\n")
    pid = holder("hold", output)
    with pytest.raises(StorageError) as caught:
        train("DataLoader.Train.dataset.image_root=/nowhere", "DataLoader.Eval.dataset.image_root=/nowhere")
    assert train.seconds < MAX_SECONDS
    assert str(caught.value).startswith(f"{output}: another run is writing there (process {pid} on ")
    assert str(caught.value).endswith("; wait for it, or choose another directory")
    assert caught.value.exit_code == 5
    assert {path.name for path in output.iterdir()} == {"train.log", LOCK}
    assert (output / "train.log").read_text() == "of the first\n"
    assert holder("release", pid) == "done"
    assert (train() / "epoch_1").is_dir()


def test_a_run_that_was_killed_leaves_its_lock_file_and_holds_nothing(holder, train, tmp_path):
    output = tmp_path / "run"
    output.mkdir()
    pid = holder("hold", output)
    assert_held(output, pid)
    assert holder("kill", pid) == "done"
    assert f"process {pid} on " in (output / LOCK).read_text()
    assert (train() / "epoch_1").is_dir()


@pytest.mark.parametrize("how", ["hold_and_fork", "hold_and_start"])
def test_what_a_killed_run_had_started_holds_nothing(holder, tmp_path, how):
    pid = holder(how, tmp_path)
    assert_held(tmp_path, pid)
    assert holder("kill", pid) == "done"
    with held(tmp_path):
        os.killpg(int(pid), 0)  # what it started is there still


@pytest.mark.parametrize("content", [b"", b"process 1 on here\n", b"\xff\x00\n\n" * 1000])
def test_a_lock_file_alone_holds_nothing_whatever_is_in_it(tmp_path, content):
    (tmp_path / LOCK).write_bytes(content)
    with held(tmp_path):
        assert (tmp_path / LOCK).read_bytes().startswith(f"process {os.getpid()} on ".encode())


def test_runs_in_other_directories_go_on_side_by_side(holder, tmp_path):
    for name in ("one", "two", "one/rank_1"):
        (tmp_path / name).mkdir()
    pid = holder("hold", tmp_path / "one")
    for name in ("two", "one/rank_1"):
        with held(tmp_path / name):
            pass
    assert_held(tmp_path / "one", pid)


def test_where_the_file_system_has_no_locks_that_is_said_and_the_run_goes_on(tmp_path, monkeypatch, caplog):
    def refused(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    with held(tmp_path):
        pass
    assert f"{tmp_path}: is on a file system without locks (No locks available); make sure that no other" in caplog.text
