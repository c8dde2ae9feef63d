# SPDX-License-Identifier: Apache-2.0
"""Data sets that a list file describes: one line per image."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated

import numpy as np

from ppcls.config.registry import DATASETS, TRANSFORMS
from ppcls.data.dataset import MAX_PROBLEMS, joined
from ppcls.data.files import FileDataset
from ppcls.data.transforms import functional
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
        cls_label_path: the list file, UTF-8: a path or URL; ``data.zip!/train.txt`` for one in an archive.
        transform_ops: operations, applied in this order.
        delimiter: what stands between path and label; None means white space. The last one in the
            line counts, so a path may contain it.
        relabel: replace the labels, sorted, by 0, 1, 2, ...

    Raises:
        DataError: the list file is missing, empty or has bad lines; names file, line and value.

    YAML::

        - ImageNetDataset:
            image_root: ./dataset/ILSVRC2012/
            cls_label_path: ./dataset/ILSVRC2012/train_list.txt
    """

    def __init__(
        self,
        image_root: str,
        cls_label_path: str,
        transform_ops: Annotated[list[Callable], TRANSFORMS] | None = None,
        delimiter: str | None = None,
        relabel: bool = False,
    ) -> None:
        self.image_root = local_folder(image_root)
        self.cls_label_path = local_path(cls_label_path)
        paths, labels, self.lines = _load_list(self.cls_label_path, delimiter)
        if relabel:
            # PaddleClas: the new numbers follow Python's set order; here they follow the old labels.
            labels = np.unique(labels, return_inverse=True)[1].astype(np.int64)
        super().__init__(paths, labels, transform_ops)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.cls_label_path!r}, {len(self)} images, {self.num_classes} classes)"

    def path(self, index: int) -> str:
        """Return where an image's file is."""
        return os.path.join(self.image_root, self.paths[index])

    def where(self, index: int) -> str:
        """Return the image's line in the list file."""
        return f"{self.cls_label_path}:{self.lines[index]}"

    def named(self, index: int, problem: str) -> str:
        """Return a problem with an image, its file and its line in the list file."""
        return f"{self.path(index)}: {problem}; listed in {self.where(index)}"

    def _advice(self) -> str:
        return f"{super()._advice()}, mend the list, or set relabel to True"


@DATASETS.register
class ClsDataset(ImageNetDataset):
    """`ImageNetDataset` under the other name that PaddleClas has for it.

    YAML::

        - ClsDataset: {image_root: ./dataset/digits/, cls_label_path: ./dataset/digits/train_list.txt}
    """


def _load_list(path: str, delimiter: str | None) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the paths, labels (int64) and line numbers (int32, from 1) of a list file."""
    text = _load_text(path)
    expected = f"expected: path{delimiter or ' '}label, the label a whole number from 0 on"
    paths: list[str] = []
    labels: list[int] = []
    lines: list[int] = []
    problems: list[str] = []
    num_problems = 0
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line:
            continue
        fields = line.rsplit(delimiter, 1)
        problem = None
        if len(fields) < 2:
            problem = f"{path}:{number}: no label in {line!r}"
        else:
            try:
                label = int(fields[1])
            except ValueError:
                problem = f"{path}:{number}: label {fields[1]!r} is not a whole number"
            else:
                if label < 0:
                    problem = f"{path}:{number}: label {label} is negative"
                elif label > np.iinfo(np.int64).max:
                    problem = f"{path}:{number}: label {label} is too large"
        if problem is None:
            paths.append(fields[0].strip())
            labels.append(label)
            lines.append(number)
        else:
            num_problems += 1
            if num_problems <= MAX_PROBLEMS:
                problems.append(problem)
    if problems:
        raise DataError(joined(problems, num_problems, expected))
    if not paths:
        raise DataError(f"{path}: the list is empty; {expected}")
    return paths, np.array(labels, np.int64), np.array(lines, np.int32)


def _load_text(path: str) -> str:
    data = b""
    try:
        data = functional.read_file(path)
        return data.decode("utf-8-sig")
    except DataError as error:
        here = "" if os.path.isabs(path) else f"; paths start from the folder where the command runs, {os.getcwd()}"
        raise DataError(f"cls_label_path: {error}{here}") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: not UTF-8; store the list file as UTF-8") from error
