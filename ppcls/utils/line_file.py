# SPDX-License-Identifier: Apache-2.0
"""Text files that grow by a line at a time, on disks that may be full or gone for a while."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path


class LineFile:
    """Appends lines, each written through at once. What the system refuses is counted; it never raises.

    A training does not end for a line of its log. The file is opened for every line, so that one that was removed
    while it grew is made again, with its directory.

    Args:
        path: the file.
        warn: takes a text for people: once when lines begin to be lost, once when they do not any more.

    Attributes:
        num_lost: lines that are not in the file.
    """

    def __init__(self, path: str | os.PathLike, warn: Callable[[str], None]) -> None:
        self.path = Path(path)
        self.warn = warn
        self.num_lost = 0
        self._is_failing = False

    def append(self, line: str) -> None:
        """Write a line, which ends in a newline."""
        try:
            try:
                self._write(line)
            except FileNotFoundError:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._write(line)
        except OSError as error:
            self.num_lost += 1
            if not self._is_failing:
                self._is_failing = True
                self.warn(f"{self.path}: cannot be written ({error.strerror or error}); lines are lost until it can")
            return
        if self._is_failing:
            self._is_failing = False
            self.warn(f"{self.path}: can be written again; {self.num_lost} lines so far are not in it")

    def _write(self, line: str) -> None:
        content = line.encode("utf-8", "backslashreplace")
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            num_written = os.write(descriptor, content)
            if num_written < len(content):
                # Half a line would spoil the next one.
                os.ftruncate(descriptor, os.fstat(descriptor).st_size - num_written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)
