# SPDX-License-Identifier: Apache-2.0
"""Data sets that a list file describes: one line per image."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated

import numpy as np

from ppcls.config.registry import DATASETS, TRANSFORMS
from ppcls.data.transforms import functional
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.tensor import ToCHWImage
from ppcls.utils.errors import DataError

MAX_PROBLEMS = 5
"""How many bad lines of a list file a message shows; it counts the others."""


@DATASETS.register
class ImageNetDataset:
    """Images and class numbers from a list file with lines ``path<delimiter>label``.

    Blank lines are skipped; a byte-order mark and Windows line ends are accepted. Nothing but the
    list file is read before the first image is asked for.

    Args:
        image_root: folder that the paths in the list start from.
        cls_label_path: the list file, UTF-8.
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
        self.image_root = image_root
        self.cls_label_path = cls_label_path
        self.transform_ops = list(transform_ops or [])
        self.paths, self.labels, self.lines = _load_list(cls_label_path, delimiter)
        if relabel:
            # PaddleClas: the new numbers follow Python's set order; here they follow the old labels.
            self.labels = np.unique(self.labels, return_inverse=True)[1].astype(np.int64)
        first = self.transform_ops[0] if self.transform_ops else None
        self._decodes = isinstance(first, DecodeImage)
        self._channel_first = any(
            isinstance(op, ToCHWImage) or (isinstance(op, DecodeImage) and op.channel_first)
            for op in self.transform_ops
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.cls_label_path!r}, {len(self)} images, {self.num_classes} classes)"

    @property
    def num_classes(self) -> int:
        """How many different labels occur."""
        return len(np.unique(self.labels))

    @property
    def class_counts(self) -> np.ndarray:
        """Images per label, int64 [largest label + 1]."""
        return np.bincount(self.labels)

    def check_labels(self, class_num: int) -> None:
        """Hold the labels against the number of classes that the model has.

        Raises:
            DataError: a label is not within ``0..class_num - 1``; names file, line, value and what to do.
        """
        outside = np.flatnonzero(self.labels >= class_num)
        if len(outside):
            problems = [
                f"{self._where(index)}: label {self.labels[index]} is outside 0..{class_num - 1} "
                f"(Arch.class_num is {class_num})"
                for index in outside[:MAX_PROBLEMS]
            ]
            advice = f"set Arch.class_num to {int(self.labels.max()) + 1}, mend the list, or set relabel to True"
            raise DataError(_joined(problems, len(outside), advice))

    def read(self, index: int) -> tuple[bytes, int]:
        """Return an image file's bytes and its label.

        Raises:
            DataError: the file cannot be read; names it and its line in the list file.
        """
        try:
            return functional.read_file(self._path(index)), int(self.labels[index])
        except DataError as error:
            raise DataError(f"{error}; listed in {self._where(index)}") from error

    def sample(self, index: int, rng: np.random.Generator | None = None) -> tuple[np.ndarray, int]:
        """Return an image, transformed, as [C, H, W], and its label.

        Args:
            index: position in the list.
            rng: where the random operations draw from.

        Raises:
            DataError: the image is missing, damaged or does not suit the operations; names it and
                its line in the list file.
        """
        image, label = self.read(index)
        try:
            if not self._decodes:
                image = functional.decode_image(image)
            for op in self.transform_ops:
                image = op(image, rng)
        except (DataError, ValueError) as error:
            reason = str(error).removeprefix("image: ")
            raise DataError(f"{self._path(index)}: {reason}; listed in {self._where(index)}") from error
        return (image if self._channel_first else image.transpose(2, 0, 1)), label

    def example_paths(self, count: int) -> list[str]:
        """Return the paths of a few images, spread evenly over the list."""
        indices = np.unique(np.linspace(0, len(self) - 1, count).astype(int))
        return [self._path(index) for index in indices]

    def _path(self, index: int) -> str:
        return os.path.join(self.image_root, self.paths[index])

    def _where(self, index: int) -> str:
        return f"{self.cls_label_path}:{self.lines[index]}"


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
        raise DataError(_joined(problems, num_problems, expected))
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


def _joined(problems: list[str], num_problems: int, advice: str) -> str:
    """Return one message: the problems, how many more there are, and what to do."""
    more = num_problems - len(problems)
    lines = problems + ([f"and {more} more lines like these"] if more else [])
    return "\n".join(lines) + f"; {advice}"
