# SPDX-License-Identifier: Apache-2.0
"""Looks through data sets one part at a time: labels, files, images, and what occurs twice."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from ppcls.data.check.cache import Cache
from ppcls.data.check.fault import Fault
from ppcls.data.check.look import Look, look_at, look_at_header
from ppcls.data.check.opened import Opened
from ppcls.data.check.processes import in_processes
from ppcls.data.dataset import ImageDataset
from ppcls.data.files import FileDataset
from ppcls.data.list_file import ImageNetDataset
from ppcls.data.repeats import repeats, shared
from ppcls.utils.errors import DataError

_FILES_AT_ONCE = 4096
_IMAGES_AT_ONCE = 32
_MAX_CLASSES = 10_000_000
_CRASHED = Look("the decoder crashes on it; remove it, or store it anew", is_lasting=False)


@dataclass
class Part:
    """One of the data sets that are checked together, and what is known of its images so far.

    Args:
        name: such as Train.
        dataset: what is checked.
        is_trained_on: whether the model learns from it.
    """

    name: str
    dataset: ImageDataset
    is_trained_on: bool
    is_there: np.ndarray = field(init=False)
    digests: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.is_there = np.ones(len(self.dataset), bool)
        self.digests = np.zeros(len(self.dataset), np.uint64)

    def path(self, index: int) -> str | None:
        """Return where an image's file is, where there are files."""
        return self.dataset.path(index) if isinstance(self.dataset, FileDataset) else None

    def fault(self, kind: str, index: int, problem: str) -> Fault:
        """Return what is wrong with an image."""
        label = int(self.dataset.labels[index])
        return Fault(kind, self.name, self.dataset.where(index), problem, self.path(index), label)


class Checker:
    """The checks of some data sets; each gives faults and notes as it finds them.

    Args:
        opened: the data sets; the first is the one to train on.
        class_num: the model's number of classes, if known.
        num_workers: processes.
        cache: where looks are kept.
        progress: told how many more images are done.
    """

    def __init__(
        self,
        opened: Sequence[Opened],
        class_num: int | None,
        num_workers: int,
        cache: Cache | None = None,
        progress: Callable[[int], object] = int,
    ) -> None:
        self.parts = [
            Part(item.name, item.dataset, position == 0)
            for position, item in enumerate(opened)
            if item.dataset is not None
        ]
        self.class_num = class_num
        self.num_workers = num_workers
        self.cache = cache
        self.progress = progress
        self.num_cached = 0
        self._told: set[tuple[str, int]] = set()

    def labels(self) -> Iterator[Fault]:
        """Labels beyond the model, and classes without images."""
        names = self.parts[0].dataset.class_names if self.parts else None
        for part in self.parts:
            dataset = part.dataset
            if names is not None and not part.is_trained_on:
                try:
                    dataset.use_class_names(names)
                except DataError as error:
                    where, _, problem = str(error).partition(": ")
                    yield Fault("label", part.name, where, problem)
            class_num = self.class_num or int(dataset.labels.max()) + 1
            for index in np.flatnonzero(dataset.labels >= class_num):
                problem = f"label {dataset.labels[index]} is outside 0..{class_num - 1}"
                yield part.fault("label", index, problem)
            if class_num > _MAX_CLASSES:
                continue  # these labels do not count classes
            inside = dataset.labels[dataset.labels < class_num]
            kind = "class" if part.is_trained_on and self.class_num else "empty_class"
            for label in np.flatnonzero(np.bincount(inside, minlength=class_num) == 0):
                text = f"class {label} has no image"
                yield Fault(kind, part.name, place_of(dataset), text, label=int(label))

    def paths(self) -> Iterator[Fault]:
        """Images that are listed twice; within a list, and in two of them."""
        lists = [part for part in self.parts if isinstance(part.dataset, ImageNetDataset)]
        digests = [part.dataset.paths.digests() for part in lists]
        for part, keys in zip(lists, digests):
            for group in repeats(keys):
                first = int(group[0])
                for index in map(int, group[1:]):
                    is_same = part.dataset.labels[index] == part.dataset.labels[first]
                    yield part.fault("repeat" if is_same else "conflict", index, also(part, first))
        for (one, keys), (other, others) in combinations(list(zip(lists, digests)), 2):
            if os.path.abspath(one.dataset.image_root) == os.path.abspath(other.dataset.image_root):
                for index, first in zip(*shared(keys, others)):
                    self._told.add((other.name, int(index)))
                    yield other.fault("leak", index, also(one, first))
            yield from _mappings(one, other)

    def files(self) -> Iterator[Fault]:
        """Files that are not there."""
        for number, part in enumerate(self.parts):
            if not isinstance(part.dataset, FileDataset):
                continue
            pieces = ((number, piece) for piece in _pieces(np.arange(len(part.dataset)), _FILES_AT_ONCE))
            found: dict[int, str] = {}
            for (_, piece), problems in in_processes(self._missing, pieces, self.num_workers, lambda piece: {}):
                found.update(problems)
                self.progress(len(piece))
            for index in sorted(found):
                part.is_there[index] = False
                yield part.fault("missing", index, found[index])

    def images(self, is_fast: bool = False) -> Iterator[Fault]:
        """Images that cannot be decoded, and unusual ones.

        Args:
            is_fast: read only what files say of themselves at their beginning.
        """
        for number, part in enumerate(self.parts):
            for index, look in self._looks(number, is_fast):
                part.digests[index] = look.digest
                if look.problem is not None:
                    part.is_there[index] = False
                    yield part.fault("damaged", index, look.problem)
                for trait in look.traits.split():
                    yield part.fault(trait, index, trait)

    def contents(self) -> Iterator[Fault]:
        """The same content under two names; within a data set, and in two of them. After `images`."""
        for part in self.parts:
            there = np.flatnonzero(part.is_there & (part.digests != 0))
            for group in repeats(part.digests[there]):
                first = int(there[group[0]])
                for index in map(int, there[group[1:]]):
                    if part.path(index) is None or part.path(index) != part.path(first):
                        is_same = part.dataset.labels[index] == part.dataset.labels[first]
                        yield part.fault("copy" if is_same else "conflicting_copy", index, also(part, first))
        for one, other in combinations(self.parts, 2):
            keys = np.where(one.is_there, one.digests, np.uint64(0))
            for index, first in zip(*shared(keys, other.digests)):
                is_known = other.digests[index] and other.is_there[index]
                if is_known and (other.name, int(index)) not in self._told:
                    yield other.fault("leak", index, also(one, first))

    def _missing(self, piece: tuple[int, np.ndarray]) -> dict[int, str]:
        number, indices = piece
        problems = {}
        for index in indices.tolist():
            problem = _problem_of(self.parts[number].path(index))
            if problem:
                problems[index] = problem
        return problems

    def _looks(self, number: int, is_fast: bool) -> Iterator[tuple[int, Look]]:
        part = self.parts[number]
        there = np.flatnonzero(part.is_there)
        for batch in _pieces(there, _FILES_AT_ONCE):
            states = self._states(part, batch) if self.cache and not is_fast else {}
            known = self.cache.find({path: state for path, state in states.values()}) if self.cache and states else {}
            looks = {index: known[state[0]] for index, state in states.items() if state[0] in known}
            self.num_cached += len(looks)
            self.progress(len(looks))
            unknown = np.array([index for index in batch.tolist() if index not in looks], np.int64)
            looks.update(self._new_looks(number, unknown, states, is_fast))
            yield from sorted(looks.items())

    def _new_looks(
        self, number: int, indices: np.ndarray, states: dict[int, tuple[str, tuple[int, int]]], is_fast: bool
    ) -> list[tuple[int, Look]]:
        def look(piece: np.ndarray) -> list[Look]:
            return [self._look(self.parts[number], index, is_fast) for index in piece.tolist()]

        def one_by_one(piece: np.ndarray) -> list[Look]:
            alone = {int(index): [_CRASHED] for index in piece}
            singles = list(_pieces(piece, 1))
            for single, looks in in_processes(look, singles, 1, lambda single: [_CRASHED]):
                alone[int(single[0])] = looks
            return [alone[int(index)][0] for index in piece]

        fresh: list[tuple[int, Look]] = []
        try:
            pieces = _pieces(indices, _IMAGES_AT_ONCE)
            for piece, looks in in_processes(look, pieces, self.num_workers, one_by_one):
                fresh += zip(piece.tolist(), looks)
                self.progress(len(piece))
        finally:
            # Also of a run that is interrupted.
            if self.cache:
                self.cache.keep((*states[index], look) for index, look in fresh if index in states)
        return fresh

    def _look(self, part: Part, index: int, is_fast: bool) -> Look:
        path = part.path(index)
        if is_fast and path is not None:
            return look_at_header(path)
        try:
            image, _ = part.dataset.read(index)
        except DataError as error:
            reason = str(error).removeprefix(f"{path}: ").removesuffix(f"; listed in {part.dataset.where(index)}")
            return Look(reason.removeprefix(f"{part.dataset.where(index)}: "), is_lasting=False)
        return look_at(image)

    def _states(self, part: Part, indices: np.ndarray) -> dict[int, tuple[str, tuple[int, int]]]:
        states = {}
        for index in indices.tolist():
            path = part.path(index)
            if path is not None:
                try:
                    found = os.stat(path)
                except OSError:
                    continue
                states[index] = os.path.abspath(path), (found.st_size, found.st_mtime_ns)
        return states


def also(part: Part, index: int) -> str:
    """Say where an image is, too."""
    return f"also {part.dataset.where(index)}, label {part.dataset.labels[index]}"


def place_of(dataset: ImageDataset) -> str:
    """Return the place of a whole data set: its list file, folder or archive."""
    files = getattr(dataset, "files", None)
    if files:
        return ", ".join(file.path for file in files)
    return getattr(dataset, "image_root", None) or getattr(dataset, "data_file", None) or repr(dataset)


def _pieces(indices: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for head in range(0, len(indices), size):
        yield indices[head : head + size]


def _problem_of(path: str | None) -> str | None:
    try:
        return None if stat.S_ISREG(os.stat(path or "").st_mode) else "not a regular file"
    except (OSError, ValueError) as error:
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"


def _mappings(one: Part, other: Part) -> Iterator[Fault]:
    """Class folders that have one label each in both lists, but not the same."""
    first, second = _labels_of_folders(one.dataset), _labels_of_folders(other.dataset)
    for folder in first.keys() & second.keys():
        (label, index), (there, position) = first[folder], second[folder]
        if folder and label != there and index >= 0 and position >= 0:
            yield other.fault(
                "mapping",
                position,
                f"folder {folder} has label {there} here, but {label} in {one.dataset.where(index)}",
            )


def _labels_of_folders(dataset: ImageNetDataset) -> dict[str, tuple[int, int]]:
    """Return folder -> (label, position of an image); the position is -1 where images differ in their labels."""
    found: dict[str, tuple[int, int]] = {}
    for index, (path, label) in enumerate(zip(dataset.paths, dataset.labels.tolist())):
        folder = os.path.basename(os.path.dirname(path))
        earlier = found.setdefault(folder, (label, index))
        if earlier[0] != label:
            found[folder] = label, -1
    return found
