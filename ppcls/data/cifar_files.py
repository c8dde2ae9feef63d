# SPDX-License-Identifier: Apache-2.0
"""CIFAR's official files (https://www.cs.toronto.edu/~kriz/cifar.html): two forms, packed or unpacked."""

from __future__ import annotations

import io
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppcls.utils.errors import DataError
from ppcls.utils.tar_file import entries_of, open_tar
from ppcls.utils.unpickle import load_arrays

SIDE = 32
IMAGE_BYTES = 3 * SIDE * SIDE
MAX_FILE_BYTES = 256 << 20  # the largest of the official ones has 155 MB
_URL = "https://www.cs.toronto.edu/~kriz"


@dataclass(frozen=True)
class Official:
    """One of the two CIFAR data sets as it is handed out.

    Attributes:
        num_classes: 10 or 100.
        python: files of the Python form for each mode, and the file with the class names.
        binary: the same of the binary form.
        label_bytes: bytes before each image in the binary form; the last one is the label.
        label_key: where the Python form has the labels.
        names_key: where its file of class names has them.
        sha256: digests of the official archives by file name.
        class_names: the names of the classes for files that come without them; None for no names then.
    """

    num_classes: int
    python: Mapping[str, tuple[str, ...]]
    binary: Mapping[str, tuple[str, ...]]
    label_bytes: int
    label_key: str
    names_key: str
    sha256: Mapping[str, str]
    class_names: list[str] | None = None

    @property
    def url(self) -> str:
        """Where the archive of the Python form is handed out."""
        return f"{_URL}/{next(iter(self.sha256))}"


CIFAR10 = Official(
    num_classes=10,
    python={
        "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
        "test": ("test_batch",),
        "names": ("batches.meta",),
    },
    binary={
        "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        "test": ("test_batch.bin",),
        "names": ("batches.meta.txt",),
    },
    label_bytes=1,
    label_key="labels",
    names_key="label_names",
    sha256={
        "cifar-10-python.tar.gz": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        "cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    },
    class_names=["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
)
CIFAR100 = Official(
    num_classes=100,
    python={"train": ("train",), "test": ("test",), "names": ("meta",)},
    binary={"train": ("train.bin",), "test": ("test.bin",), "names": ("fine_label_names.txt",)},
    label_bytes=2,  # the coarse label first
    label_key="fine_labels",
    names_key="fine_label_names",
    sha256={
        "cifar-100-python.tar.gz": "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        "cifar-100-binary.tar.gz": "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    },
)


def load_official(place: str, official: Official, mode: str) -> tuple[np.ndarray, np.ndarray, list[str] | None] | None:
    """Return images uint8 [N, 32, 32, 3], labels int64 [N] and class names; None for no official files there.

    Args:
        place: a tar archive, or a folder that the files are in, by themselves or in one of its subfolders.
        official: which of the two data sets.
        mode: ``train`` or ``test``.

    Raises:
        DataError: a file is missing, cut off or damaged; names it.
    """
    files = _Folder(place) if os.path.isdir(place) else _Archive(place, official)
    for form, load, load_names in (
        (official.python, _load_python, _python_names),
        (official.binary, _load_binary, _binary_names),
    ):
        if any(name in files for name in (*form["train"], *form["test"])):
            parts = [load(files, name, official) for name in form[mode]]
            images, labels = (np.concatenate(column) for column in zip(*parts))
            if labels.min() < 0 or labels.max() >= official.num_classes:
                raise DataError(f"{place}: has labels outside 0..{official.num_classes - 1}; is it the other CIFAR?")
            if form["names"][0] not in files:
                # Folders of evaluation images come without it.
                return images, labels, official.class_names
            names = load_names(files, form["names"][0], official)
            if len(names) != official.num_classes:
                raise DataError(f"{place}: {form['names'][0]} names {len(names)} classes, not {official.num_classes}")
            return images, labels, names
    return None


class _Folder:
    """The files of a folder by name, of its subfolders as well."""

    def __init__(self, place: str) -> None:
        self.place = place
        inside = [place, *sorted(entry.path for entry in os.scandir(place) if entry.is_dir())]
        self.paths = {entry.name: entry.path for folder in reversed(inside) for entry in _files_of(folder)}

    def __contains__(self, name: str) -> bool:
        return name in self.paths

    def read(self, name: str) -> bytes:
        try:
            with open(self.paths[name], "rb") as file:
                return file.read()
        except KeyError:
            raise DataError(f"{self.place}: {name} is missing; unpack the whole archive") from None
        except OSError as error:
            raise DataError(f"{self.paths[name]}: cannot be read ({error.strerror})") from error


def _files_of(folder: str) -> list[os.DirEntry]:
    return [entry for entry in os.scandir(folder) if entry.is_file()]


class _Archive:
    """The files of a tar archive by name, whatever folder they are in; nothing is unpacked to disk."""

    def __init__(self, place: str, official: Official) -> None:
        self.place = place
        forms = (*official.python.values(), *official.binary.values())
        self.names = frozenset(name for names in forms for name in names)
        self.members: dict[str, tarfile.TarInfo] = {}
        self._guarded(self._list)

    def _list(self) -> None:
        with open_tar(self.place) as archive:
            for member in entries_of(archive):
                name = os.path.basename(member.name)
                if member.isfile() and name in self.names:
                    self.members[name] = member

    def __contains__(self, name: str) -> bool:
        return name in self.members

    def read(self, name: str) -> bytes:
        if name not in self.members:
            raise DataError(f"{self.place}: {name} is missing in it; download it again")
        return self._guarded(lambda: self._read(name))

    def _read(self, name: str) -> bytes:
        if self.members[name].size > MAX_FILE_BYTES:
            raise tarfile.ReadError(f"{name} of {self.members[name].size} bytes")
        with open_tar(self.place) as archive:
            file = archive.extractfile(self.members[name])
            data = file.read() if file else b""
        if len(data) != self.members[name].size:
            raise EOFError(f"{name} ends early")
        return data

    def _guarded(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except (tarfile.TarError, EOFError, RecursionError, ValueError, lzma.LZMAError, zlib.error) as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"{self.place}: cut off, damaged or no tar archive ({reason}); download it again"
            ) from error
        except OSError as error:
            raise DataError(f"{self.place}: cannot be read ({error.strerror or error})") from error


def _load_python(files: Any, name: str, official: Official) -> tuple[np.ndarray, np.ndarray]:
    batch = _pickled(files, name)
    data, labels = batch.get("data"), batch.get(official.label_key)
    if (
        not isinstance(data, np.ndarray)
        or data.dtype != np.uint8
        or data.ndim != 2
        or data.shape[1] != IMAGE_BYTES
        or not isinstance(labels, list)
        or len(labels) != len(data)
        or not all(type(label) is int for label in labels)
    ):
        raise DataError(f"{files.place}: {name} does not hold images of {IMAGE_BYTES} bytes with {official.label_key}")
    return _images(data), np.array(labels, np.int64)


def _python_names(files: Any, name: str, official: Official) -> list[str]:
    names = _pickled(files, name).get(official.names_key)
    if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
        raise DataError(f"{files.place}: {name} has no {official.names_key}")
    return names


def _pickled(files: Any, name: str) -> dict:
    try:
        value = load_arrays(io.BytesIO(files.read(name)))
    except ValueError as error:
        raise DataError(f"{files.place}: {name}: cut off or damaged ({error})") from error
    if not isinstance(value, dict):
        raise DataError(f"{files.place}: {name} holds a {type(value).__name__}, not a dict")
    return value


def _load_binary(files: Any, name: str, official: Official) -> tuple[np.ndarray, np.ndarray]:
    data = np.frombuffer(files.read(name), np.uint8)
    record = official.label_bytes + IMAGE_BYTES
    if not len(data) or len(data) % record:
        raise DataError(
            f"{files.place}: {name} is cut off: {len(data)} bytes are no whole number of {record}-byte images"
        )
    records = data.reshape(-1, record)
    return _images(records[:, official.label_bytes :]), records[:, official.label_bytes - 1].astype(np.int64)


def _binary_names(files: Any, name: str, official: Official) -> list[str]:
    lines = files.read(name).decode("utf-8", "replace").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _images(planes: np.ndarray) -> np.ndarray:
    """Return uint8 [N, 32, 32, 3] of rows that hold the red, the green and the blue plane one after the other."""
    return np.ascontiguousarray(planes.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))
