# SPDX-License-Identifier: Apache-2.0
"""A data set that is one file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np

from ppcls.config.registry import DATASETS, TRANSFORMS
from ppcls.data.dataset import ImageDataset
from ppcls.data.pack import Pack
from ppcls.utils.download import masked
from ppcls.utils.local_copy import local_path


@DATASETS.register
class PackedDataset(ImageDataset):
    """Images, labels and class names from one file that ``tools/pack_dataset.py`` made.

    An image is one read at its place in the file, whatever the order and from any number of processes; slow
    disks and network file systems are asked for one file instead of a million.

    Args:
        data_file: the pack: a path or URL.
        transform_ops: operations, applied in this order.
        relabel: replace the labels, sorted, by 0, 1, 2, ...

    Raises:
        DataError: the file is missing, no pack, unfinished, cut off or altered; says which.

    YAML::

        - PackedDataset: {data_file: ./dataset/ILSVRC2012/train.pack}
    """

    def __init__(
        self,
        data_file: str,
        transform_ops: Annotated[list[Callable], TRANSFORMS] | None = None,
        relabel: bool = False,
    ) -> None:
        self.data_file = data_file
        self.pack = Pack(local_path(data_file))
        labels, names = self.pack.labels, self.pack.class_names
        if relabel:
            old, labels = np.unique(labels, return_inverse=True)
            names = names and [names[label] for label in old.tolist()]
        super().__init__(labels, transform_ops, names)

    def __repr__(self) -> str:
        return f"PackedDataset({masked(self.data_file)!r}, {len(self)} images, {self.num_classes} classes)"

    def where(self, index: int) -> str:
        """Return the file, the image's number in it, and the path that it had."""
        return self.pack.where(index)

    def read(self, index: int) -> tuple[bytes, int]:
        """Return the bytes of an image's file and its label.

        Raises:
            DataError: they are not those that were packed; names file and image.
        """
        return self.pack.read(index), int(self.labels[index])

    def _advice(self) -> str:
        return f"{super()._advice()}, or set relabel to True"
