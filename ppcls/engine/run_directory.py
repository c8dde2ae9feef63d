# SPDX-License-Identifier: Apache-2.0
"""What a run leaves in its output directory: its names, what is found there, what is kept."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import count
from pathlib import Path

from ppcls.data.bad_samples import REPORT
from ppcls.engine.stored_state import STATE, read_class_names, read_state
from ppcls.utils.errors import StorageError
from ppcls.utils.leftovers import clear_unfinished
from ppcls.utils.local_copy import local_path
from ppcls.utils.logger import logger
from ppcls.utils.storage import remove, verify

BEST = "best_model"
CONFIG_COPY = "config.yaml"
ENVIRONMENT = "environment.json"
JSON_LINES = "train.jsonl"
LOG = "train.log"
RECORDS = (CONFIG_COPY, ENVIRONMENT, JSON_LINES, REPORT)
NUM_NEWEST = 2
_NAME = re.compile(r"epoch_(\d+)(?:_step_(\d+))?")

Place = tuple[int, int]
"""How far a training is: epochs that have ended, and in the middle of the next one the updates so far, else 0."""
START: Place = (0, 0)


def directory_of(rank: int, output_dir: Path) -> Path:
    """Where a process writes checkpoints."""
    return output_dir / f"rank_{rank}" if rank else output_dir


def name_of(place: Place) -> str:
    """``epoch_3`` at the end of an epoch, ``epoch_3_step_1200`` in the middle of it."""
    epochs, step = place
    return f"epoch_{epochs + 1}_step_{step}" if step else f"epoch_{epochs}"


def place_of(name: str) -> Place | None:
    """The place in a checkpoint's name; None for another name."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return (int(match[1]), 0) if match[2] is None else (int(match[1]) - 1, int(match[2]))


def newest_first(names: Iterable[str]) -> list[str]:
    """Those that are names of checkpoints, in the order of their places."""
    places = {name: place for name in names if (place := place_of(name))}
    return sorted(places, key=places.__getitem__, reverse=True)


def checkpoints_in(directory: Path) -> list[Path]:
    """The directories named like checkpoints, newest first."""
    return [directory / name for name in newest_first(path.name for path in directory.glob("epoch_*") if path.is_dir())]


def newest_valid(directory: Path) -> Path | None:
    """The newest checkpoint that verifies."""
    return next(filter(Trust().has, checkpoints_in(directory)), None)


def verify_checkpoint(directory: Path) -> dict[str, dict]:
    """Return the files of a checkpoint, by name, as its manifest has them, after checking them all.

    Raises:
        StorageError: a file is missing, cut off or altered, or all of them are those of another place.
    """
    files = verify(directory)["files"]
    own = place_of(directory.name)
    if own and STATE in files and (place := read_state(directory).place) != own:
        raise StorageError(f"{directory}: holds {name_of(place)} and not what its name says; rename it, or remove it")
    return files


class Trust:
    """Remembers which directories verified; what has not changed in size or time since is not read again."""

    def __init__(self) -> None:
        self._stamps: dict[Path, list] = {}

    def give(self, directory: Path) -> None:
        """Trust a directory that has just been written."""
        self._stamps[directory] = _stamp(directory)

    def has(self, directory: Path) -> bool:
        """Whether it verifies."""
        stamp = _stamp(directory)
        if self._stamps.get(directory) != stamp:
            try:
                verify_checkpoint(directory)
            except StorageError:
                return False
            self._stamps[directory] = stamp
        return True


def _stamp(directory: Path) -> list:
    files = sorted(directory.iterdir())
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def best_epoch(directory: Path) -> int:
    """The epoch that the best weights in a directory are of; 0 when there are none, or they do not verify."""
    try:
        verify(directory / BEST)
        return read_state(directory / BEST).epoch
    except StorageError:
        return 0


def stored_class_names(source: str | None) -> list[str] | None:
    """The class names that a checkpoint or best weights were saved with; None for other weights.

    Raises:
        StorageError: what lies beside the weights cannot be read.
    """
    if not source:
        return None
    given = Path(local_path(source)).expanduser()
    # Weights are named by their checkpoint, or by the file in it, with its ending or without.
    directory = given.parent if given.name in ("model", "model.safetensors") else given
    return read_class_names(directory)


def prune(directory: Path, newest: Path, save_interval: int, keep_max: int | None, trust: Trust) -> None:
    """Remove the checkpoints before ``newest`` that are not kept; damaged ones count for nothing.

    Kept are the newest ``keep_max``; without that number the newest two and every ``save_interval``-th epoch.
    """
    names = [path.name for path in checkpoints_in(directory)]
    num_good = 0
    for name in names[names.index(newest.name) :]:
        path = directory / name
        if num_good < (keep_max or NUM_NEWEST):
            # A damaged one does not count: an older one stays in its place.
            num_good += trust.has(path)
        elif keep_max or not ends_interval(name, save_interval):
            _remove(path)


def ends_interval(name: str, save_interval: int) -> bool:
    """Whether a checkpoint is of the end of an epoch that ``save_interval`` divides."""
    match = _NAME.fullmatch(name)
    return bool(match and match[2] is None and save_interval and int(match[1]) % save_interval == 0)


def clear(directory: Path) -> None:
    """Remove what a run that was killed had begun to write or to remove here; no other run may be at work."""
    try:
        gone = clear_unfinished(directory, lambda name: name in (BEST, *RECORDS) or place_of(name) is not None)
    except OSError as error:
        logger.warning("%s: what a run that was killed left there cannot be removed (%s)", directory, error)
        return
    if gone:
        logger.info("%s: cleared up after a run that was killed (%s)", directory, ", ".join(gone))


def set_aside(directory: Path, place: Place) -> Path | None:
    """Move what is of later places, and all else when none is done, to ``earlier_N``; give that folder."""
    left = [path for path in checkpoints_in(directory) if (place_of(path.name) or START) > place]
    # Best weights are of the end of an epoch.
    if (directory / BEST).is_dir() and not 0 < best_epoch(directory) <= place[0]:
        left.append(directory / BEST)
    if place == START:
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
