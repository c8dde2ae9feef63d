# SPDX-License-Identifier: Apache-2.0
"""Samples that cannot be read: counted, reported, and an end to it when they are too many."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ppcls.utils.errors import DataError
from ppcls.utils.line_file import LineFile
from ppcls.utils.logger import logger

REPORT = "bad_samples.jsonl"
MAX_LINES = 5
"""How many bad samples have a line of their own in the log; the others are in the report."""


class BadSamples:
    """Every bad sample once: a line in the log, a line in the report.

    Args:
        dataset: knows where a sample is.
        num_samples: how many of its samples this process reads.
        max_fraction: of them that may be bad.
        split: ``Train`` or ``Eval``.
        report: the file to append to, one JSON object a line; None for none.
    """

    def __init__(
        self,
        dataset: Any,
        num_samples: int,
        max_fraction: float,
        split: str = "Train",
        report: str | os.PathLike | None = None,
    ) -> None:
        self.dataset = dataset
        self.num_samples = num_samples
        self.max_fraction = max_fraction
        self.split = split
        self.report = None if report is None else Path(report)
        self._lines = LineFile(report or os.devnull, logger.warning)
        self._seen: set[int] = set()
        self._reported: set[tuple] | None = None

    def __len__(self) -> int:
        return len(self._seen)

    def note(self, index: int, reason: str) -> None:
        """Count a sample.

        Raises:
            DataError: there are too many by now.
        """
        if index in self._seen:
            return
        self._seen.add(index)
        if len(self) <= MAX_LINES:
            logger.warning("[%s] left out: %s", self.split, reason)
        elif len(self) & (len(self) - 1) == 0:  # 8, 16, 32, ...
            logger.warning("[%s] %d images could not be read%s", self.split, len(self), self._see_report())
        self._write(index, reason)
        if len(self) > self.max_fraction * self.num_samples:
            raise DataError(
                f"{len(self)} of {self.num_samples} images cannot be read, more than DataLoader.{self.split}."
                f"max_bad_fraction ({self.max_fraction:g}) allows; the last: {reason}{self._see_report()}"
            )

    def _see_report(self) -> str:
        return f"; all are in {self.report}" if self.report else ""

    def _write(self, index: int, reason: str) -> None:
        if self.report is None:
            return
        line = {
            "split": self.split,
            "index": index,
            "file": place_of(self.dataset, index, "path"),
            "listed": place_of(self.dataset, index, "where"),
            "reason": reason,
        }
        if self._reported is None:
            self._reported = _keys_in(self.report)
        if _key(line) not in self._reported:
            self._reported.add(_key(line))
            # A name may hold bytes that are no UTF-8; JSON escapes them.
            self._lines.append(json.dumps(line) + "\n")


def report_of(rank: int, output_dir: Path) -> Path:
    """Where a process writes its report."""
    return output_dir / (REPORT.replace(".", f".rank_{rank}.") if rank else REPORT)


def place_of(dataset: Any, index: int, name: str) -> str | None:
    """What the data set says to ``path`` or ``where``, if it knows the question."""
    method = getattr(dataset, name, None)
    return None if method is None else str(method(index))


def _key(line: dict[str, Any]) -> tuple:
    return line.get("split"), line.get("index"), line.get("file"), line.get("listed")


def _keys_in(report: Path) -> set[tuple]:
    """What an earlier part of the run has reported already."""
    keys = set()
    if report.exists():
        for line in report.read_text(encoding="ascii", errors="replace").splitlines():
            try:
                keys.add(_key(json.loads(line)))
            except (ValueError, AttributeError):
                continue  # cut off when the run was killed
    return keys
