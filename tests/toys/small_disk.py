# SPDX-License-Identifier: Apache-2.0
"""A disk in memory, which can be filled to the page and made read-only (for root only), at moments of a training."""

import os
import subprocess
from contextlib import contextmanager, suppress

import pytest

from ppcls.engine.callbacks import Callback

PAGE = 4096


class SmallDisk:
    """A mounted tmpfs; ``path`` is where."""

    def __init__(self, path):
        self.path = path
        self.ballast = path / ".ballast"

    @property
    def free_pages(self):
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize // PAGE

    def fill(self, leave=0):
        """Take all space but so many pages."""
        with suppress(OSError), self.ballast.open("wb", buffering=0) as file:
            while num_pages := self.free_pages - leave:
                file.write(b"x" * PAGE * num_pages)
        assert self.free_pages == leave

    def empty(self):
        """Give the space back."""
        self.ballast.unlink()

    def make_read_only(self, is_read_only=True):
        """Or writable again; also while files are open for writing."""
        if is_read_only:
            mount("--bind", str(self.path), str(self.path))
            mount("-o", "remount,bind,ro", str(self.path))
        else:
            subprocess.run(["umount", "-l", str(self.path)], check=True)


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


@contextmanager
def small_disk(path, pages=256):
    """Mount a disk there, if that is allowed here."""
    path.mkdir()
    try:
        mount("-t", "tmpfs", "-o", f"size={pages * PAGE}", "tmpfs", str(path))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disk of its own can be mounted here ({error})")
    try:
        yield SmallDisk(path)
    finally:
        while os.path.ismount(path):
            subprocess.run(["umount", "-l", str(path)], check=True)


class At(Callback):
    """Does something at the end of an epoch, once all saves before it have ended one way or the other."""

    def __init__(self, checkpointer, functions):
        self.checkpointer = checkpointer
        self.functions = functions

    def on_epoch_end(self, state):
        if f"epoch_{state.epoch}" in self.functions:
            self.checkpointer.settle()
            self.functions[f"epoch_{state.epoch}"]()


def saved(output):
    """The names of the checkpoints there."""
    return {path.name for path in output.glob("epoch_*")}
