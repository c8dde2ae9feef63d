# SPDX-License-Identifier: Apache-2.0
"""On a machine that has nothing yet, a run goes on from the copy that `Mirror` made elsewhere."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ppcls.engine.run_directory import BEST, ENVIRONMENT, JSON_LINES, LOG, checkpoints_in, newest_first
from ppcls.utils.download import locked
from ppcls.utils.errors import StorageError
from ppcls.utils.logger import logger
from ppcls.utils.manifest import MANIFEST
from ppcls.utils.remote import Remote
from ppcls.utils.storage import verify


def restore(directory: Path, url: str) -> None:
    """Fetch the newest checkpoint that verifies, the best weights and the records; nothing where a run is already.

    Several processes may ask at once: one fetches, the others wait.

    Args:
        directory: the run's output directory.
        url: where its copy is.

    Raises:
        StorageError: the copy cannot be read, or none of its checkpoints verifies.
    """
    with locked(directory / "restore"):
        if checkpoints_in(directory):
            return
        remote = Remote(url)
        there = remote.children()
        names = [name for name in newest_first(there) if remote.read(f"{name}/{MANIFEST}") is not None]
        if not names:
            return
        staging = directory / ".restored"
        shutil.rmtree(staging, ignore_errors=True)
        try:
            newest = next((name for name in names if _fetch(remote, name, staging)), None)
            if newest is None:
                raise StorageError(f"{remote.url}: none of its {len(names)} checkpoints can be used; move them away")
            has_best = BEST in there and _fetch(remote, BEST, staging)
            records = {name: remote.read(name) for name in (LOG, JSON_LINES)}
            environment = remote.read(ENVIRONMENT)
            for name, earlier in records.items():
                # The copy may have been made while a line was being written.
                _put_before(directory / name, (earlier or b"")[: (earlier or b"").rfind(b"\n") + 1])
            if environment is not None:
                (directory / ENVIRONMENT).write_bytes(environment)
            if has_best:
                shutil.rmtree(directory / BEST, ignore_errors=True)  # of a restoring that was interrupted
                os.replace(staging / BEST, directory / BEST)
            # The last, as the next start looks for it.
            os.replace(staging / newest, directory / newest)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        logger.info("%s: restored %s from %s", directory, newest, remote.url)


def _fetch(remote: Remote, name: str, staging: Path) -> bool:
    """Whether a directory arrives in a state that verifies; a connection that fails is another matter, and raised."""
    remote.download_folder(staging / name, remote.files(name), name)
    try:
        verify(staging / name)
    except StorageError as error:
        logger.warning("%s/%s: %s; going on without it", remote.url, name, error)
        return False
    return True


def _put_before(path: Path, earlier: bytes) -> None:
    # In place: the log is open already, and what is written to it goes to its end.
    with open(path, "a+b") as file:
        file.seek(0)
        present = file.read()
        if not present.startswith(earlier):  # as a restoring that was interrupted leaves it
            file.truncate(0)
            file.write(earlier + present)
