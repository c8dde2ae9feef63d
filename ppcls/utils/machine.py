# SPDX-License-Identifier: Apache-2.0
"""What this process may use of the machine: cores and memory, also inside a container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")
_NO_LIMIT = 2**60
"""Version 1 of control groups writes a number near 2**63 where nothing is limited."""


def usable_cores(root: Path = _ROOT) -> int:
    """Return how many cores this process may keep busy: at least 1.

    That is those it may run on, and not more than a container's share (``docker run --cpus 2``).

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Windows and macOS
        cores = os.cpu_count() or 1
    for folder in _groups(root, "cpu"):
        share = _words(folder / "cpu.max") or [
            *_words(folder / "cpu.cfs_quota_us"),
            *_words(folder / "cpu.cfs_period_us"),
        ]
        # Microseconds of every so many; "max" or -1 where nothing is limited.
        if len(share) == 2 and all(word.isdecimal() for word in share) and int(share[1]):
            cores = min(cores, int(share[0]) // int(share[1]))
    return max(cores, 1)


def available_memory(root: Path = _ROOT) -> int | None:
    """Return how many bytes of memory can still be had before something has to give; None where nobody says.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    left = []
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            left.append(int(line.split()[1]) * 1024)
    for folder in _groups(root, "memory"):
        for limit_name, used_name, cache_name in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, used = _words(folder / limit_name), _words(folder / used_name)
            if limit and used and limit[0].isdecimal() and int(limit[0]) < _NO_LIMIT:
                # What is kept of files only because nothing else wants the room.
                pairs = (line.split() for line in _lines(folder / "memory.stat"))
                cache = next((int(pair[1]) for pair in pairs if pair[0] == cache_name), 0)
                left.append(max(int(limit[0]) - int(used[0]) + cache, 0))
    return min(left, default=None)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the control groups that this process is in, with those above; version 2 and version 1."""
    for line in _lines(root / "proc/self/cgroup"):
        number, names, path = line.split(":", 2)
        if number == "0" or controller in names.split(","):
            top = root / "sys/fs/cgroup"
            top = top / controller if number != "0" else top
            # A container may not see its own path, but then it sees its own limits at the top.
            folder = top / path.lstrip("/")
            for candidate in (folder, *folder.parents):
                if candidate == top or top in candidate.parents:
                    yield candidate


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()
