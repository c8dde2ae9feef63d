# SPDX-License-Identifier: Apache-2.0
"""A data set that is a folder: one subfolder of images for each class."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Annotated

import numpy as np

from ppcls.config.registry import DATASETS, TRANSFORMS
from ppcls.data.files import FileDataset
from ppcls.data.images import ENDINGS
from ppcls.data.texts import Texts
from ppcls.utils.errors import DataError
from ppcls.utils.local_copy import local_folder


@DATASETS.register
class ImageFolder(FileDataset):
    """Images sorted into folders, ``image_root/<class>/**/*.jpg``.

    A class's number is the place of its folder's name in sorted order. Training saves the names with
    the model; evaluation numbers the classes by them, so a folder that lacks a class stays right.
    Files that are no images, and names that start with a dot, are left out.

    Args:
        image_root: the folder of class folders, such as ``dataset/my_images/train``: a path or URL, also of an
            archive (``s3://bucket/data.zip``; ``data.zip!/train`` for a folder in it), which is unpacked once.
        transform_ops: operations, applied in this order.

    Raises:
        DataError: there is no such folder, no class folder in it, or a class without images; names it.

    YAML::

        - ImageFolder: {image_root: ./dataset/my_images/train}
    """

    def __init__(self, image_root: str, transform_ops: Annotated[list[Callable], TRANSFORMS] | None = None) -> None:
        self.image_root = local_folder(image_root)
        names, paths, labels = find_classes(self.image_root)
        super().__init__(Texts.of(paths), labels, transform_ops, names)

    def __repr__(self) -> str:
        return f"ImageFolder({self.image_root!r}, {len(self)} images, {self.num_classes} classes)"


def find_classes(root: str) -> tuple[list[str], list[str], np.ndarray]:
    """Return the class names, sorted, the paths of all images, sorted within a class, and their labels int64 [N].

    Raises:
        DataError: there is no such folder, no class folder in it, or a class without images; names it.
    """
    try:
        entries = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != ".")
    except OSError as error:
        here = "" if os.path.isabs(root) else f"; paths start from the folder where the command runs, {os.getcwd()}"
        raise DataError(f"image_root: {root}: cannot be read ({error.strerror}){here}") from error
    if not entries:
        raise DataError(
            f"image_root: {root}: no class folders in it; expected {os.path.join(root, '<class>', '*.jpg')}"
        )
    paths: list[str] = []
    labels: list[int] = []
    empty = []
    for label, name in enumerate(entries):
        found = sorted(path for path in files_under(os.path.join(root, name)) if path.lower().endswith(ENDINGS))
        paths += found
        labels += [label] * len(found)
        if not found:
            empty.append(os.path.join(root, name))
    if empty:
        more = f" and {len(empty) - 1} more" if empty[1:] else ""
        raise DataError(f"{empty[0]}{more}: a class folder without images ({', '.join(ENDINGS)}); fill or remove it")
    return entries, paths, np.array(labels, np.int64)


def files_under(folder: str) -> Iterator[str]:
    """Give the paths of all files below a folder, links followed, without names that start with a dot.

    Raises:
        DataError: a folder cannot be read, or a link leads back; names it.
    """
    seen: set[str] = set()
    for directory, _, names in os.walk(folder, followlinks=True, onerror=_refuse):
        real = os.path.realpath(directory)
        # A link to a folder above would give its images again and again, and those of other classes.
        if real in seen or os.path.realpath(folder).startswith(real + os.sep):
            raise DataError(f"{directory}: a link leads back to a folder that is read already; remove it")
        seen.add(real)
        yield from (os.path.join(directory, name) for name in names if name[0] != ".")


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error
