# SPDX-License-Identifier: Apache-2.0
"""Data sets that a list file describes: one line per image."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Annotated

import numpy as np

from ppcls.config.registry import DATASETS, TRANSFORMS
from ppcls.data.dataset import MAX_PROBLEMS, joined
from ppcls.data.files import FileDataset
from ppcls.data.list_lines import ListFile
from ppcls.data.texts import Joined
from ppcls.utils.errors import DataError
from ppcls.utils.local_copy import local_folder, local_path


@DATASETS.register
class ImageNetDataset(FileDataset):
    """Images and class numbers from a list file with lines ``path<delimiter>label``.

    Blank lines are skipped; a byte-order mark and Windows line ends are accepted. Nothing but the
    list file is read before the first image is asked for.

    Args:
        image_root: folder that the paths in the list start from: a path or URL, also of an archive (``data.zip``,
            ``s3://bucket/data.zip``; ``data.zip!/train`` for a folder in it), which is unpacked once.
        cls_label_path: the list file, UTF-8: a path or URL; ``data.zip!/train.txt`` for one in an archive. Or several,
            which are read as one, in this order.
        transform_ops: operations, applied in this order.
        delimiter: what stands between path and label; None means white space. The last one in the
            line counts, so a path may contain it.
        relabel: replace the labels, sorted, by 0, 1, 2, ...
        check_files: make sure at the start that every file is there, which takes 1 s for 100,000 on a local disk;
            otherwise a missing one is found when its turn comes. ``tools/check_data.py`` looks for much more.

    Raises:
        DataError: a list file is missing, empty or has bad lines; names file, line and value.
        ValueError: no list file, or an empty delimiter.

    YAML::

        - ImageNetDataset:
            image_root: ./dataset/ILSVRC2012/
            cls_label_path: ./dataset/ILSVRC2012/train_list.txt
    """

    def __init__(
        self,
        image_root: str,
        cls_label_path: str | list[str],
        transform_ops: Annotated[list[Callable], TRANSFORMS] | None = None,
        delimiter: str | None = None,
        relabel: bool = False,
        check_files: bool = False,
    ) -> None:
        self.image_root = local_folder(image_root)
        places = [cls_label_path] if isinstance(cls_label_path, str) else cls_label_path
        if not places:
            raise ValueError("cls_label_path: an empty list; name at least one list file")
        self.files = self._load([local_path(place) for place in places], delimiter)
        labels = _one_behind_the_other(self.files)
        if relabel:
            # PaddleClas: the new numbers follow Python's set order; here they follow the old labels.
            labels = np.unique(labels, return_inverse=True)[1].astype(np.int64)
        super().__init__(Joined([file.paths for file in self.files]), labels, transform_ops)
        if check_files:
            self._require_files()

    def __repr__(self) -> str:
        lists = ", ".join(repr(file.path) for file in self.files)
        return f"{type(self).__name__}({lists}, {len(self)} images, {self.num_classes} classes)"

    def path(self, index: int) -> str:
        """Return where an image's file is."""
        return os.path.join(self.image_root, self.paths[index])

    def where(self, index: int) -> str:
        """Return the image's line in the list file."""
        number, inside = self.paths.place(index)
        return f"{self.files[number].path}:{self.files[number].line(inside)}"

    def named(self, index: int, problem: str) -> str:
        """Return a problem with an image, its file and its line in the list file."""
        return f"{self.path(index)}: {problem}; listed in {self.where(index)}"

    def missing(self) -> Iterator[int]:
        """Give the images of which there is no file."""
        for index, path in enumerate(self.paths):
            if not os.path.isfile(os.path.join(self.image_root, path)):
                yield index

    def _load(self, paths: list[str], delimiter: str | None) -> list[ListFile]:
        """Read the list files, and refuse faulty ones."""
        files = [ListFile(path, delimiter, MAX_PROBLEMS) for path in paths]
        _without_faults(files, delimiter)
        return files

    def _require_files(self) -> None:
        missing = list(self.missing())
        if missing:
            problems = [f"{self.where(index)}: there is no file {self.path(index)}" for index in missing[:MAX_PROBLEMS]]
            advice = (
                f"{len(missing)} of {len(self)} images are missing; mend image_root ({self.image_root}) or the list"
            )
            raise DataError(joined(problems, len(missing), advice))

    def _advice(self) -> str:
        return f"{super()._advice()}, mend the list, or set relabel to True"


@DATASETS.register
class ClsDataset(ImageNetDataset):
    """`ImageNetDataset` under the other name that PaddleClas has for it.

    YAML::

        - ClsDataset: {image_root: ./dataset/digits/, cls_label_path: ./dataset/digits/train_list.txt}
    """


def _one_behind_the_other(files: list[ListFile]) -> np.ndarray:
    """Return the labels of all files; each file keeps a view of its own."""
    if len(files) == 1:
        return files[0].labels
    labels = np.concatenate([file.labels for file in files])
    ends = np.cumsum([len(file) for file in files])
    for file, end in zip(files, ends):
        file.labels = labels[end - len(file) : end]
    return labels


def _without_faults(files: list[ListFile], delimiter: str | None) -> None:
    """Refuse lists with faulty lines, and empty ones."""
    expected = f"expected: path{delimiter or ' '}label, the label a whole number from 0 on"
    problems = [f"{file.path}:{fault.line}: {fault.problem}" for file in files for fault in file.faults]
    if problems:
        raise DataError(joined(problems[:MAX_PROBLEMS], sum(file.num_faults for file in files), expected))
    for file in files:
        if not len(file):
            raise DataError(f"{file.path}: the list is empty; {expected}")
