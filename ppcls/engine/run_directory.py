# SPDX-License-Identifier: Apache-2.0
"""What a run leaves in its output directory: its names, what is found there, what is kept."""

from __future__ import annotations

import json
import re
from itertools import count
from pathlib import Path

from ppcls.utils.errors import StorageError
from ppcls.utils.logger import logger
from ppcls.utils.storage import remove, verify

BEST = "best_model"
CONFIG_COPY = "config.yaml"
JSON_LINES = "train.jsonl"
RECORDS = (CONFIG_COPY, JSON_LINES)
NUM_NEWEST = 2
_NAME = re.compile(r"epoch_(\d+)")


def checkpoints_in(directory: Path) -> list[Path]:
    """The directories named like checkpoints, newest first."""
    paths = [path for path in directory.glob("epoch_*") if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(paths, key=epoch_of, reverse=True)


def newest_valid(directory: Path, quiet: bool = False) -> Path | None:
    """The newest checkpoint that verifies; every newer one that does not is named in a warning."""
    for path in checkpoints_in(directory):
        try:
            verify(path)
            return path
        except StorageError as error:
            if not quiet:
                logger.warning("%s; trying the one before it", error)
    return None


def best_epoch(directory: Path) -> int:
    """The epoch that the best weights in a directory are of; 0 when there are none, or they do not verify."""
    try:
        verify(directory / BEST)
        return int(json.loads((directory / BEST / "state.json").read_text(encoding="utf-8"))["epoch"])
    except StorageError:
        return 0


def epoch_of(path: Path) -> int:
    """The epoch in a checkpoint's name; -1 for another name."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else -1


def prune(directory: Path, epoch: int, save_interval: int) -> None:
    """Remove the checkpoints before ``epoch`` but the newest two that verify and every ``save_interval``-th."""
    num_good = 0
    for path in checkpoints_in(directory):
        if epoch_of(path) > epoch:
            continue
        if num_good < NUM_NEWEST:
            # A damaged one does not count: an older one stays in its place.
            num_good += epoch_of(path) == epoch or _is_good(path)
        elif not save_interval or epoch_of(path) % save_interval:
            _remove(path)


def set_aside(directory: Path, epoch: int) -> Path | None:
    """Move what is of later epochs, and all else when none is done, to ``earlier_N``; give that folder."""
    left = [path for path in checkpoints_in(directory) if epoch_of(path) > epoch]
    if (directory / BEST).is_dir() and not 0 < best_epoch(directory) <= epoch:
        left.append(directory / BEST)
    if epoch == 0:
        left += [directory / name for name in RECORDS if (directory / name).is_file()]
    if not left:
        return None
    aside = next(path for path in (directory / f"earlier_{number}" for number in count(1)) if not path.exists())
    aside.mkdir()
    for path in left:
        path.rename(aside / path.name)
    return aside


def _remove(path: Path) -> None:
    try:
        remove(path)
    except OSError as error:
        logger.warning("%s: cannot be removed (%s)", path, error.strerror or error)


def _is_good(path: Path) -> bool:
    try:
        verify(path)
    except StorageError:
        return False
    return True
