# SPDX-License-Identifier: Apache-2.0
"""What was found in files earlier, so that only those are looked at again that have changed since."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import cv2
import PIL

import ppcls
from ppcls.data.check.look import Look
from ppcls.utils.errors import StorageError
from ppcls.utils.storage import ensure_writable

_APPLICATION = 0x70706373
"""Marks a file of this kind; SQLite keeps a number for that."""
_TABLE = """CREATE TABLE IF NOT EXISTS looks (
    path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, rules TEXT, problem TEXT, digest INTEGER, traits TEXT
) WITHOUT ROWID"""
_RULES = f"ppcls {ppcls.__version__}, OpenCV {cv2.__version__}, Pillow {PIL.__version__}"
"""By what the images were decoded; another version may decide otherwise."""
_AT_ONCE = 500


class Cache:
    """Looks by path, size and time of last change.

    Args:
        path: the file; made if need be.

    Raises:
        StorageError: it cannot be written, or is a file of another kind.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        ensure_writable(self.path.parent)
        try:
            self._database = sqlite3.connect(self.path, timeout=30)
            (mark,) = self._database.execute("PRAGMA application_id").fetchone()
            is_new = not self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if mark != _APPLICATION and not is_new:
                raise sqlite3.DatabaseError("a database of another program")
            self._database.execute(f"PRAGMA application_id={_APPLICATION}")
            self._database.execute(_TABLE)
        except sqlite3.Error as error:
            raise StorageError(f"{self.path}: cannot be used as a cache ({error}); name another file") from error

    def find(self, files: dict[str, tuple[int, int]]) -> dict[str, Look]:
        """Return what is known of files.

        Args:
            files: path -> (bytes, time of last change in ns), as they are now.
        """
        found = {}
        paths = list(files)
        for head in range(0, len(paths), _AT_ONCE):
            some = paths[head : head + _AT_ONCE]
            marks = ",".join("?" * len(some))
            query = (
                f"SELECT path, size, mtime_ns, problem, digest, traits FROM looks WHERE rules=? AND path IN ({marks})"
            )
            for path, size, mtime_ns, problem, digest, traits in self._database.execute(query, [_RULES, *some]):
                if files[path] == (size, mtime_ns):
                    found[path] = Look(problem, digest % 2**64, traits)
        return found

    def keep(self, looks: Iterable[tuple[str, tuple[int, int], Look]]) -> None:
        """Note what was found.

        Args:
            looks: path, (bytes, time of last change in ns) from before the file was read, and what was found.

        Raises:
            StorageError: the disk is full or fails.
        """
        rows = (
            # SQLite's numbers have a sign.
            (path, size, mtime_ns, _RULES, look.problem, look.digest - (look.digest >> 63 << 64), look.traits)
            for path, (size, mtime_ns), look in looks
            if look.is_lasting
        )
        try:
            with self._database:
                self._database.executemany("INSERT OR REPLACE INTO looks VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            raise StorageError(f"{self.path}: cannot be written ({error}); name another file, or none") from error

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()
