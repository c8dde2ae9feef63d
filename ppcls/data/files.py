# SPDX-License-Identifier: Apache-2.0
"""Data sets in which each image is a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ppcls.data.dataset import ImageDataset
from ppcls.data.transforms import functional
from ppcls.utils.errors import DataError


class FileDataset(ImageDataset):
    """A data set in which each image is a file.

    Args:
        paths: where the files are, as `path` takes them; `Texts`, so that processes can share them.
        labels: int64 [N], from 0 on.
        transform_ops: operations, applied in this order.
        class_names: the names of the labels, where the data set knows them.
    """

    def __init__(
        self,
        paths: Sequence[str],
        labels: np.ndarray,
        transform_ops: Sequence[Callable] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(labels, transform_ops, class_names)
        self.paths = paths

    def path(self, index: int) -> str:
        """Return where an image's file is."""
        return self.paths[index]

    def where(self, index: int) -> str:
        """Return the image's path."""
        return self.path(index)

    def read(self, index: int) -> tuple[bytes, int]:
        """Return an image file's bytes and its label.

        Raises:
            DataError: the file cannot be read; names it.
        """
        try:
            return functional.read_file(self.path(index)), int(self.labels[index])
        except DataError as error:
            raise DataError(self.named(index, str(error).removeprefix(f"{self.path(index)}: "))) from error
