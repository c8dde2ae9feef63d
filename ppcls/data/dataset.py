# SPDX-License-Identifier: Apache-2.0
"""What all data sets have in common: labels, and how a stored image becomes what the model takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ppcls.data.pipeline import Pipeline
from ppcls.data.rng import BatchRng, SampleRng
from ppcls.utils.errors import DataError

MAX_PROBLEMS = 5
"""How many problems of a data set a message shows; it counts the others."""


class ImageDataset:
    """Images with one label each; a kind of data set says how an image is read.

    Args:
        labels: int64 [N], from 0 on.
        transform_ops: operations, applied in this order.
        class_names: the names of the labels, where the data set knows them.

    Attributes:
        takes_sizes: whether `sample` also takes the size that a sampler draws.
    """

    takes_sizes = False

    def __init__(
        self,
        labels: np.ndarray,
        transform_ops: Sequence[Callable] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.labels = labels
        self.pipeline = Pipeline(transform_ops or [])
        self.class_names = None if class_names is None else list(class_names)

    def read(self, index: int) -> tuple[bytes | np.ndarray, int]:
        """Return an image as it is stored, a file's bytes or uint8 [H, W, 3] in RGB, and its label.

        Raises:
            DataError: it cannot be read; names it.
        """
        raise NotImplementedError

    def where(self, index: int) -> str:
        """Return the place that says which label an image has."""
        raise NotImplementedError

    def named(self, index: int, problem: str) -> str:
        """Return a problem with an image and the place where it is found."""
        return f"{self.where(index)}: {problem}"

    def __len__(self) -> int:
        return len(self.labels)

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
            DataError: a label is not within ``0..class_num - 1``; names the place, the value and what to do.
        """
        outside = np.flatnonzero(self.labels >= class_num)
        if len(outside):
            problems = [
                f"{self.where(index)}: label {self.labels[index]} is outside 0..{class_num - 1} "
                f"(Arch.class_num is {class_num})"
                for index in outside[:MAX_PROBLEMS]
            ]
            raise DataError(joined(problems, len(outside), self._advice()))

    def _advice(self) -> str:
        return f"set Arch.class_num to {int(self.labels.max()) + 1}"

    def use_class_names(self, names: Sequence[str]) -> None:
        """Number the classes as another data set or a trained model does; nothing where no names are known.

        Raises:
            DataError: a class is not among the names.
        """
        if self.class_names is None or self.class_names == list(names):
            return
        numbers = {name: number for number, name in enumerate(names)}
        foreign = [name for name in self.class_names if name not in numbers]
        if foreign:
            raise DataError(
                f"{self.where(0)}: the class {foreign[0]!r} ({len(foreign)} such) is not one of the {len(names)} that "
                f"the model is trained on ({', '.join(names[:3])}, ...); remove it, or train with it"
            )
        self.labels = np.array([numbers[name] for name in self.class_names], np.int64)[self.labels]
        self.class_names = list(names)

    def sample(self, index: int, rng: SampleRng | None = None) -> tuple[np.ndarray, int]:
        """Return an image, as its `pipeline` makes it, and its label.

        Args:
            index: position in the data set.
            rng: where the random operations draw from.

        Raises:
            DataError: the image is missing, damaged or does not suit the operations; names it.
        """
        image, label = self.read(index)
        try:
            return self.pipeline(image, rng), label
        except (DataError, ValueError) as error:
            raise DataError(self.named(index, str(error).removeprefix("image: "))) from error

    @property
    def makes_batches(self) -> bool:
        """Whether `samples` may take the place of `sample`: for small images that lie in memory."""
        return False

    def samples(self, indices: np.ndarray, rng: BatchRng) -> tuple[np.ndarray, np.ndarray]:
        """Return what `sample` returns for each index, as images [N, ...] and labels int64 [N].

        Args:
            indices: positions in the data set, int64 [N].
            rng: of these positions.

        Raises:
            DataError: the images do not suit the operations.
        """
        raise NotImplementedError


def joined(problems: list[str], num_problems: int, advice: str) -> str:
    """Return one message: the problems, how many more there are, and what to do."""
    more = num_problems - len(problems)
    lines = problems + ([f"and {more} more lines like these"] if more else [])
    return "\n".join(lines) + f"; {advice}"
