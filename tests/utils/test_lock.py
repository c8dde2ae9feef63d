# SPDX-License-Identifier: Apache-2.0
"""One run at a time writes to a directory."""

import shutil
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from ppcls.utils.errors import StorageError
from ppcls.utils.lock import LOCK, held, hold_again


def say_hello_and_wait(pipe):
    pipe.send("hello")
    time.sleep(600)


def test_a_process_that_was_forked_does_not_hold_the_directory_of_its_parent(tmp_path):
    context = get_context("fork")
    ours, theirs = context.Pipe()
    worker = context.Process(target=say_hello_and_wait, args=(theirs,), daemon=True)
    with held(tmp_path):
        worker.start()
        ours.recv()
        with pytest.raises(StorageError, match="another run is writing there"), held(tmp_path):
            pass
    with held(tmp_path):
        pass
    worker.kill()
    worker.join()


def test_a_held_directory_is_free_again_after_its_run(tmp_path):
    with held(tmp_path), pytest.raises(StorageError, match="another run is writing there"), held(tmp_path):
        pass
    with held(tmp_path):
        pass


def test_a_run_that_was_killed_holds_nothing(tmp_path):
    hold = "import os, sys; from ppcls.utils.lock import held\nwith held(sys.argv[1]): os.kill(os.getpid(), 9)"
    root = Path(__file__).resolve().parents[2]
    killed = subprocess.run([sys.executable, "-c", hold, str(tmp_path)], cwd=root, check=False)
    assert killed.returncode == -9
    with held(tmp_path):
        pass


def test_a_directory_that_vanished_is_made_again_and_held_again(tmp_path):
    directory = tmp_path / "output"
    directory.mkdir()
    with held(directory):
        assert not hold_again(directory)
        shutil.rmtree(directory)
        assert hold_again(directory)
        assert not hold_again(directory)
        with pytest.raises(StorageError, match="another run is writing there"), held(directory):
            pass
    with held(directory):
        pass


def test_a_directory_that_another_run_has_made_again_is_its_own(tmp_path):
    directory = tmp_path / "output"
    directory.mkdir()
    with held(directory):
        shutil.rmtree(directory)
        directory.mkdir()
        hold = "import sys; from ppcls.utils.lock import held\nwith held(sys.argv[1]): print(flush=True); input()"
        root = Path(__file__).resolve().parents[2]
        pipe = subprocess.PIPE
        with subprocess.Popen([sys.executable, "-c", hold, str(directory)], cwd=root, stdin=pipe, stdout=pipe) as other:
            other.stdout.readline()
            with pytest.raises(StorageError, match="another run is writing there"):
                hold_again(directory)
            other.communicate(b"\n")
        assert hold_again(directory)


def test_what_is_not_held_is_not_made(tmp_path):
    assert not hold_again(tmp_path / "output")
    assert not (tmp_path / "output" / LOCK).exists()
