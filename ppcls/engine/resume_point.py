# SPDX-License-Identifier: Apache-2.0
"""Which checkpoint a run goes on from: the newest that every one of its processes can read."""

from __future__ import annotations

from pathlib import Path

from ppcls.engine.run_directory import checkpoints_in, directory_of, newest_first, newest_valid, verify_checkpoint
from ppcls.engine.stored_state import STATE, read_state
from ppcls.utils import dist
from ppcls.utils.download import is_url
from ppcls.utils.errors import StorageError
from ppcls.utils.local_copy import local_path
from ppcls.utils.logger import logger

LATEST = "latest"
AUTO = "auto"


def find_checkpoint(source: str, output_dir: Path) -> Path | None:
    """This process's copy of the checkpoint that all processes agree on; None when ``auto`` finds none at all.

    A process other than the first looks where the first one writes (a disk that they share) and, beside it, where
    it writes itself with ``Global.save_on_all_ranks``. All processes raise the same error, or none does.

    Args:
        source: ``auto``, ``<directory>/latest``, or a checkpoint directory or its URL.
        output_dir: where ``auto`` looks.

    Raises:
        StorageError: there is none that all can read.
    """
    if source == AUTO:
        return _newest_in(output_dir, source)
    if is_url(source):
        with dist.together():
            source = local_path(source)
    path = Path(source)
    if path.name == LATEST and not any(dist.gathered(path.exists())):
        newest = _newest_in(path.parent, source)
        if newest is None:
            raise StorageError(f"{source}: there is no checkpoint in {path.parent}")
        return newest
    copy, problem = _common_copy(path.parent, path.name)
    if copy is None:
        raise StorageError(problem + _advice(path))
    return copy


def _newest_in(folder: Path, source: str) -> Path | None:
    lists = dist.gathered([path.name for place in _places(folder) for path in checkpoints_in(place)])
    names = newest_first({name for names in lists for name in names})
    problems = []
    for name in names:
        copy, problem = _common_copy(folder, name)
        if copy:
            return copy
        problems.append(problem)
        logger.warning("%s; trying the one before it", problem)
    if problems:
        # Never a fresh start: on which of several disks the run is to go on is for a person to say.
        raise StorageError(
            f"checkpoints: {source}: none of the {len(names)} checkpoints in {folder} can be used ({problems[0]}); "
            "move them away, or leave Global.checkpoints out, to start from the beginning"
        )
    return None


def _common_copy(folder: Path, name: str) -> tuple[Path | None, str]:
    """This process's copy of a checkpoint, if every process has one that verifies; else what is the matter."""
    copies: dict[str, Path] = {}
    problem = f"{folder / name}: no such checkpoint; give a directory such as output/epoch_5, or 'auto'"
    if (folder / name).is_file():
        problem = f"{folder / name}: this is a file; give the directory of the checkpoint, {folder}"
    for path in [place / name for place in _places(folder)]:
        if path.is_dir():
            try:
                copies.setdefault(_identity(path), path)
            except StorageError as error:
                problem = str(error)
    told = dist.gathered((list(copies), problem))
    wanted = next(iter(told[0][0]), "")
    for rank, (states, problem) in enumerate(told):
        if wanted not in states:
            # The state tells runs apart: an epoch_5 that an earlier run left on another disk is not this one's.
            text = f"{folder / name}: not of the run that the first process continues" if states else problem
            return None, f"process {rank}: {text}" if rank else text
    return copies[wanted], ""


def _identity(path: Path) -> str:
    """What tells a checkpoint from those of other runs; only of one that is whole, and where it belongs."""
    files = verify_checkpoint(path)
    if "optimizer.safetensors" not in files:
        raise StorageError(f"{path}: holds weights only; start from it with Global.pretrained_model instead")
    for name in (STATE, "model.safetensors"):
        if name not in files:
            raise StorageError(f"{path}: its manifest does not list {name}, so it is not a checkpoint of a training")
    read_state(path)
    return files[STATE]["sha256"]


def _places(folder: Path) -> list[Path]:
    return list(dict.fromkeys([folder, directory_of(dist.rank(), folder)]))


def _advice(path: Path) -> str:
    if not path.is_dir():
        return ""
    other = newest_valid(path) or newest_valid(path.parent)
    if other:
        return f"; the newest good one is {other}"
    return "; there is no good one beside it: leave Global.checkpoints out, or write auto, to start from the beginning"
