# SPDX-License-Identifier: Apache-2.0
"""From a data set of files to a pack, so that a run that was killed is taken up where it stopped.

While it grows, a pack is called ``x.pack.partial``. Beside it lies ``x.pack.partial.journal``: the settings, then one
line for each image that is safely in the pack, or was left out. Every so many images the pack is flushed to disk, and
after it the journal, so that the journal never promises what is not there; what the pack has beyond it is made anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ppcls.data.dataset import MAX_PROBLEMS, joined
from ppcls.data.files import FileDataset
from ppcls.data.pack import HEADER_BYTES, Pack, header_block
from ppcls.data.pack_encoder import EncodedImage, Shrinking, encoded
from ppcls.utils.errors import ConfigError, DataError, StorageError

COMMIT_IMAGES = 1000
"""After so many images what was written is flushed: that much work a killed run loses at most."""


def write_pack(
    source: FileDataset,
    image_root: str,
    target: str | os.PathLike,
    shrinking: Shrinking,
    num_workers: int = 0,
    on_bad: Literal["error", "skip"] = "error",
    commit_images: int = COMMIT_IMAGES,
) -> Iterator[int]:
    """Write a pack of all images of a data set, in its order; yield how many are done, first those of an earlier run.

    Every image is decoded, so that what is in the pack is sound.

    Args:
        source: the data set.
        image_root: the folder that the paths in the pack start from.
        target: the pack's file; appears when it is complete. One that is there and the same stays as it is.
        shrinking: which images are not stored as they are.
        num_workers: processes that read and encode; 0 does it in this one.
        on_bad: what to do about an image that cannot be read or decoded: stop, or leave it out.
        commit_images: images between two flushes.

    Raises:
        ConfigError: there is a pack of this name, finished or not, of another list or with other settings.
        DataError: an image is bad, or there is none that is not.
        StorageError: the disk is full or fails, or another run is writing; what is there can be taken up.
        PeerError: a worker died.
    """
    target = Path(target)
    paths = [_relative(source.path(index), image_root) for index in range(len(source))]
    settings = {
        "images_sha256": _images_digest(paths, source),
        "resize_short": shrinking.resize_short,
        "quality": shrinking.quality if shrinking.resize_short else None,
    }
    if target.exists():
        _require_same(target, _finished_settings(target), settings)
        yield len(source)
        return
    growing = _GrowingPack(target, settings)
    try:
        with growing:
            if on_bad == "error" and growing.problems:
                shown = list(growing.problems.values())[:MAX_PROBLEMS]
                advice = f"an earlier run with --on_bad skip left them out: give that again, or remove {growing.path}"
                raise DataError(joined(shown, len(growing.problems), advice))
            yield growing.num_done
            for image in encoded(source, range(growing.num_done, len(source)), shrinking, num_workers):
                if image.problem is not None and on_bad == "error":
                    advice = "mend it and give the same command again, it goes on from here; or give --on_bad skip"
                    raise DataError(f"{image.problem}; {advice}")
                growing.add(image)
                if growing.num_done % commit_images == 0:
                    growing.commit()
                yield growing.num_done
            growing.commit()
            growing.finish(paths, source.labels, source.class_names)
    except OSError as error:
        raise StorageError(
            f"{growing.path}: cannot be written ({error.strerror or error}); {growing.num_kept} of {len(source)} "
            "images are kept: make room and give the same command again"
        ) from error


class _GrowingPack:
    """An unfinished pack and its journal, open for writing by this process alone."""

    def __init__(self, target: Path, settings: dict[str, Any]) -> None:
        self.target = target
        self.settings = settings
        self.path = target.with_name(f"{target.name}.partial")
        self.journal_path = target.with_name(f"{target.name}.partial.journal")
        self.sizes = array("q")
        self.crcs = array("I")
        self.digests = bytearray()
        self.problems: dict[int, str] = {}
        self.num_done = 0
        self.num_kept = 0
        self._end = HEADER_BYTES
        self._lines: list[bytes] = []
        try:
            with ExitStack() as opened:
                target.parent.mkdir(parents=True, exist_ok=True)
                self._journal = self._open(self.journal_path, opened)
                self._lock()
                self._file = self._open(self.path, opened)
                self._take_up()
                self._opened = opened.pop_all()
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be written ({error.strerror or error})") from error

    def __enter__(self) -> _GrowingPack:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        with self._opened:
            if isinstance(error, OSError):
                # The half of an image that is there makes room for its predecessors' lines in the journal.
                with suppress(OSError):
                    os.ftruncate(self._file, self._end)
                    self.commit()
            elif error is not None:
                self.commit()

    def add(self, image: EncodedImage) -> None:
        """Write an image, or note why there is none."""
        _write(self._file, image.data)
        self._end += len(image.data)
        entry = [len(image.data), image.crc, image.sha256] if image.problem is None else [image.problem]
        self._note(entry)
        self._lines.append(json.dumps(entry).encode("ascii") + b"\n")

    def commit(self) -> None:
        """Make sure that all images so far outlive whatever happens."""
        if self._lines:
            os.fsync(self._file)
            _write(self._journal, b"".join(self._lines))
            os.fsync(self._journal)
            self._lines = []
            self.num_kept = self.num_done

    def finish(self, paths: list[str], labels: np.ndarray, class_names: list[str] | None) -> None:
        """Write index, digests and header, and give the pack its name."""
        if not self.sizes:
            shown = list(self.problems.values())[:MAX_PROBLEMS]
            raise DataError(joined(shown, len(self.problems), "no image is left that could be packed"))
        kept = [index for index in range(self.num_done) if index not in self.problems]
        about = {
            "settings": self.settings,
            "class_names": class_names,
            "skipped": [self.problems[index] for index in sorted(self.problems)],
        }
        names = [os.fsencode(paths[index]) for index in kept]
        index = b"".join(
            [
                np.cumsum([HEADER_BYTES, *self.sizes], dtype="<i8").tobytes(),
                np.cumsum([0, *map(len, names)], dtype="<i8").tobytes(),
                labels[kept].astype("<i8").tobytes(),
                np.array(self.crcs, "<u4").tobytes(),
                *names,
                json.dumps(about).encode("ascii"),
            ]
        )
        header = {
            "complete": True,
            "images": len(kept),
            "index_start": self._end,
            "digests_start": self._end + len(index),
            "file_bytes": self._end + len(index) + len(self.digests),
            "index_sha256": hashlib.sha256(index).hexdigest(),
            "digests_sha256": hashlib.sha256(self.digests).hexdigest(),
        }
        _write(self._file, index)
        _write(self._file, bytes(self.digests))
        os.fsync(self._file)
        os.lseek(self._file, 0, os.SEEK_SET)
        _write(self._file, header_block(header))
        os.fsync(self._file)
        os.replace(self.path, self.target)
        with ExitStack() as opened:
            os.fsync(self._open(self.target.parent, opened, os.O_RDONLY))
        self.journal_path.unlink()

    @staticmethod
    def _open(path: Path, opened: ExitStack, flags: int = os.O_RDWR | os.O_CREAT) -> int:
        descriptor = os.open(path, flags, 0o666)
        opened.callback(os.close, descriptor)
        return descriptor

    def _lock(self) -> None:
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have finished, and removed it, between our opening and locking it.
            if os.fstat(self._journal).st_ino == os.stat(self.journal_path).st_ino:
                return
        raise StorageError(f"{self.path}: another run is writing it; wait for it to end")

    def _note(self, entry: list) -> None:
        if len(entry) == 1:
            self.problems[self.num_done] = str(entry[0])
        else:
            size, crc, digest = entry
            self.digests += bytes.fromhex(digest)
            self.crcs.append(crc)
            self.sizes.append(size)
        self.num_done += 1

    def _take_up(self) -> None:
        """Read what an earlier run has done, and cut both files behind it."""
        journal = self.journal_path.read_bytes()
        first, newline, rest = journal.partition(b"\n")
        if not newline or not os.fstat(self._file).st_size:
            os.ftruncate(self._journal, 0)
            os.ftruncate(self._file, 0)
            _write(self._file, header_block({"complete": False}))
            os.fsync(self._file)
            _write(self._journal, json.dumps(self.settings).encode("ascii") + b"\n")
            os.fsync(self._journal)
            return
        try:
            _require_same(self.path, json.loads(first), self.settings)
        except (ValueError, AttributeError) as error:
            raise StorageError(f"{self.journal_path}: damaged ({error}); remove it to begin anew") from error
        place = len(first) + len(newline)
        # A run that was killed, or a full disk, leaves half a line at the end, a power failure perhaps garbage.
        with suppress(ValueError, TypeError, OverflowError):
            for line in rest.split(newline)[:-1]:
                self._note(json.loads(line))
                place += len(line) + len(newline)
        self._end += sum(self.sizes)
        self.num_kept = self.num_done
        self._require_last_image()
        os.ftruncate(self._journal, place)
        os.lseek(self._journal, place, os.SEEK_SET)
        # A run that was killed at its very end has left a header that says "complete".
        _write(self._file, header_block({"complete": False}))
        os.ftruncate(self._file, self._end)
        os.lseek(self._file, self._end, os.SEEK_SET)

    def _require_last_image(self) -> None:
        size = self.sizes[-1] if self.sizes else 0
        data = os.pread(self._file, size, self._end - size)
        if self.sizes and hashlib.sha256(data).digest() != self.digests[-hashlib.sha256().digest_size :]:
            raise StorageError(f"{self.path}: not what its journal describes; remove {self.journal_path} to begin anew")


def _write(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _relative(path: str, image_root: str) -> str:
    return path.removeprefix(os.path.join(image_root, ""))


def _images_digest(paths: list[str], source: FileDataset) -> str:
    digest = hashlib.sha256(json.dumps([len(paths), source.class_names]).encode("ascii"))
    digest.update(source.labels.astype("<i8").tobytes())
    for path in paths:
        digest.update(os.fsencode(path) + b"\0")
    return digest.hexdigest()


def _finished_settings(target: Path) -> dict[str, Any]:
    try:
        return Pack(target).settings
    except DataError as error:
        raise StorageError(f"{error}; or choose another name for the new one") from error


def _require_same(path: Path, earlier: dict[str, Any], settings: dict[str, Any]) -> None:
    for key, value in settings.items():
        if earlier.get(key) != value:
            was = "of other images or labels" if key == "images_sha256" else f"with {key} {earlier.get(key)}"
            now = "" if key == "images_sha256" else f", not {value}"
            raise ConfigError(f"{path}: is there already, {was}{now}; remove it, or choose another name")
