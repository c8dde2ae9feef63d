# SPDX-License-Identifier: Apache-2.0
"""A copy of a run's outputs in object storage, kept up to date behind the training's back."""

from __future__ import annotations

import json
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ppcls.engine.callbacks import Callback
from ppcls.engine.run_directory import (
    BEST,
    LOG,
    RECORDS,
    START,
    checkpoints_in,
    ends_interval,
    newest_first,
    place_of,
)
from ppcls.utils.errors import StorageError
from ppcls.utils.logger import log_traceback, logger
from ppcls.utils.manifest import MANIFEST
from ppcls.utils.remote import Remote

if TYPE_CHECKING:
    from ppcls.engine.trainer import TrainState

NUM_ATTEMPTS = 5
FIRST_WAIT_SECONDS = 2.0
"""Before the second attempt; every further wait is twice as long."""
FINAL_WAIT_SECONDS = 300.0
"""How long the end of a training waits for the last upload."""
_SNAPSHOTS = ".mirror"
_PROBE = ".write-probe"


@dataclass
class _Snapshot:
    """What there was to mirror at one moment.

    Attributes:
        folder: where hard links keep it, whatever becomes of the originals.
        present: every checkpoint, and the best weights.
        sources: those of them that may have to be uploaded, and where from.
    """

    folder: Path
    present: list[str]
    sources: dict[str, Path]


class Mirror(Callback):
    """Uploads checkpoints, best weights and records to object storage; a context manager around the training.

    A thread uploads while the training goes on. What fails is tried again, with growing waits and after the next
    checkpoint; it is logged, and never ends the training. A checkpoint's manifest is uploaded last, so that half of
    one never verifies; what is removed here is removed there.

    Args:
        directory: the run's output directory.
        url: where its copy is.
        save_interval: of the checkpoints that an earlier machine left there, which are kept; as `prune` has it.
        keep_max: likewise.

    Raises:
        ConfigError: the URL is none of object storage.
    """

    def __init__(
        self,
        directory: Path,
        url: str,
        save_interval: int = 1,
        keep_max: int | None = None,
    ) -> None:
        self.directory = directory
        self.remote = Remote(url)
        self.save_interval = save_interval
        self.keep_max = keep_max
        self.num_failures = 0
        self.is_behind = False
        self._snapshots = directory / _SNAPSHOTS
        self._num_snapshots = 0
        self._pending: _Snapshot | None = None
        self._is_closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)
        self._mirrored: dict[str, bytes] = {}

    def __enter__(self) -> Mirror:
        """Make sure that the place can be written.

        Raises:
            StorageError: it cannot.
        """
        self.remote.write(_PROBE, b"")
        self.remote.remove(_PROBE)
        shutil.rmtree(self._snapshots, ignore_errors=True)
        return self

    def on_train_start(self, state: TrainState) -> None:
        """Refuse to mix two runs; then upload what is there already.

        Raises:
            StorageError: another run has come further there.
        """
        start = (state.epochs_done, state.step if state.batch else 0)
        for name in newest_first(self.remote.children()):
            if (place_of(name) or START) > start and self.remote.read(f"{name}/{MANIFEST}") is not None:
                raise StorageError(
                    f"Global.output_url: {self.remote.url} has {name} of a run that came further than where this one "
                    "starts; go on with it by checkpoints: auto and an empty output_dir, or give another output_url"
                )
        self._thread.start()
        self._request()

    def renew(self) -> None:
        """Upload what has changed; called after every checkpoint, in the thread that wrote it."""
        self._request()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Upload the rest, wait for it within limits, and say what is not there."""
        if self._thread.ident is None:
            return  # the training has not begun, so what is there is none of its business
        if isinstance(error, Exception):
            log_traceback(error)  # now, so that it is in the copy too
        self._request(is_last=True)
        if self._thread.is_alive():
            logger.info("[Mirror] waiting for the last upload to %s, at most %g s", self.remote.url, FINAL_WAIT_SECONDS)
        self._thread.join(FINAL_WAIT_SECONDS)
        if not self._thread.is_alive():
            shutil.rmtree(self._snapshots, ignore_errors=True)
        failures = f"{self.num_failures} failed attempt{'' if self.num_failures == 1 else 's'}"
        if self.is_behind:
            missing = [name for name in self._present() if self._mirrored.get(name) != _manifest(self.directory / name)]
            logger.warning(
                "[Mirror] after %s, %s lacks what is newest of: %s; copy them from %s",
                *(failures, self.remote.url, ", ".join([*missing, LOG, *RECORDS]), self.directory),
            )
        else:
            logger.info("[Mirror] everything is in %s, after %s", self.remote.url, failures)

    def _request(self, is_last: bool = False) -> None:
        snapshot = self._snapshot()
        with self._changed:
            former, self._pending = self._pending, snapshot
            self._is_closing = is_last
            self.is_behind = True
            self._changed.notify()
        if former:
            shutil.rmtree(former.folder, ignore_errors=True)

    def _snapshot(self) -> _Snapshot:
        self._num_snapshots += 1
        folder = self._snapshots / str(self._num_snapshots)
        present = self._present()
        sources = {}
        for name in present:
            source = self.directory / name
            manifest = _manifest(source)
            if manifest is not None and manifest != self._mirrored.get(name):
                sources[name] = _linked(source, folder / name)
        return _Snapshot(folder, present, sources)

    def _present(self) -> list[str]:
        """Every checkpoint, newest first, and the best weights."""
        best = [BEST] if (self.directory / BEST).is_dir() else []
        return [path.name for path in checkpoints_in(self.directory)] + best

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._is_closing)
                snapshot, self._pending = self._pending, None
            if snapshot is None:
                return
            self._try(snapshot)
            shutil.rmtree(snapshot.folder, ignore_errors=True)

    def _try(self, snapshot: _Snapshot) -> None:
        wait_seconds = FIRST_WAIT_SECONDS
        for attempt in range(1, NUM_ATTEMPTS + 1):
            try:
                self._upload(snapshot)
                with self._changed:
                    self.is_behind = self._pending is not None
                return
            except (StorageError, OSError) as error:
                self.num_failures += 1
                is_over = attempt == NUM_ATTEMPTS
                then = "trying again with the next checkpoint" if is_over else f"trying again in {wait_seconds:g} s"
                logger.warning("[Mirror] %s; %s", error, "giving up" if is_over and self._is_closing else then)
            with self._changed:
                if is_over or self._changed.wait_for(lambda: self._pending, wait_seconds):
                    return  # what is newer takes the place of this
            wait_seconds *= 2

    def _upload(self, snapshot: _Snapshot) -> None:
        there = self.remote.children()
        for name, source in snapshot.sources.items():
            self._upload_directory(name, source, name in there)
        for name in (LOG, *RECORDS):
            if (self.directory / name).is_file():
                self.remote.write(name, (self.directory / name).read_bytes())
        # Last: until the new ones are there, the old ones are needed.
        for name in there:
            if name not in snapshot.present and self._is_outdated(name, snapshot):
                self._remove(name)
                logger.info("[Mirror] %s/%s removed", self.remote.url, name)

    def _upload_directory(self, name: str, source: Path, is_there: bool) -> None:
        manifest = _manifest(source)
        if manifest is None or self._mirrored.get(name) == manifest:
            return  # removed before its turn where the disk has no hard links, or uploaded meanwhile
        if is_there and self.remote.read(f"{name}/{MANIFEST}") == manifest:
            self._mirrored[name] = manifest
            return
        if is_there:
            self._remove(name)
        for file in json.loads(manifest)["files"]:
            self.remote.upload(source / file, f"{name}/{file}")
        self.remote.write(f"{name}/{MANIFEST}", manifest)
        self._mirrored[name] = manifest
        logger.info("[Mirror] %s/%s", self.remote.url, name)

    def _is_outdated(self, name: str, snapshot: _Snapshot) -> bool:
        """Whether a checkpoint that only the copy has would be removed if it were here."""
        place = place_of(name)
        newest = next((place_of(present) for present in snapshot.present), None)
        if place is None or newest is None or place > newest:
            return False
        # What was here and is not any more, or what a machine before this one would have removed by now.
        return name in self._mirrored or bool(self.keep_max) or not ends_interval(name, self.save_interval)

    def _remove(self, name: str) -> None:
        self._mirrored.pop(name, None)
        self.remote.remove(f"{name}/{MANIFEST}")
        for file in self.remote.files(name):
            self.remote.remove(f"{name}/{file}")


def _manifest(directory: Path) -> bytes | None:
    """The manifest of a directory; None when there is no proper one."""
    try:
        data = (directory / MANIFEST).read_bytes()
        json.loads(data)["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return data


def _linked(source: Path, target: Path) -> Path:
    """Hard links to the files of a directory, or itself where the disk has none."""
    try:
        target.mkdir(parents=True)
        for path in source.iterdir():
            os.link(path, target / path.name)
    except OSError:
        return source
    return target
