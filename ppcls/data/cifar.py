# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10 and CIFAR-100, held in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from ppcls.config.registry import DATASETS, TRANSFORMS
from ppcls.data.cifar_files import CIFAR10, CIFAR100, SIDE, Official, load_official
from ppcls.data.dataset import ImageDataset
from ppcls.data.image_folder import find_classes
from ppcls.data.rng import BatchRng
from ppcls.data.transforms import functional
from ppcls.utils.download import expected_digest, fetch, is_url, masked, without_secrets
from ppcls.utils.errors import DataError, StorageError
from ppcls.utils.local_copy import INSIDE, archive_and_inside, local_folder
from ppcls.utils.storage import sha256 as sha256_of


class _Cifar(ImageDataset):
    """What both data sets share; see `Cifar10`."""

    official: Official

    def __init__(
        self,
        data_file: str | None = None,
        mode: Literal["train", "test"] = "train",
        download: bool = True,
        backend: Literal["cv2", "pil"] = "cv2",
        transform_ops: Annotated[list[Callable], TRANSFORMS] | None = None,
        sha256: str | None = None,
        sample_per_label: Literal[None] = None,
        expand_labels: Literal[1] = 1,
    ) -> None:
        if mode not in ("train", "test"):
            raise ValueError(f"mode must be train or test; got {mode!r}")
        self.mode = mode
        self.data_file = _found(self.official, data_file, download, sha256)
        loaded = load_official(self.data_file, self.official, mode)
        self.images, labels, names = loaded or _load_folder(self.data_file, self.official, mode)
        super().__init__(labels, transform_ops, names)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({masked(str(self.data_file))!r}, {self.mode}, {len(self)} images)"

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """Return an image, uint8 [32, 32, 3], and its label."""
        return self.images[index], int(self.labels[index])

    @property
    def makes_batches(self) -> bool:
        """Whether all operations take many images at a time."""
        return self.pipeline.takes_batches

    def samples(self, indices: np.ndarray, rng: BatchRng) -> tuple[np.ndarray, np.ndarray]:
        """Return what `sample` returns for each index: images [N, ...] and labels int64 [N].

        Raises:
            DataError: the images do not suit the operations.
        """
        try:
            return self.pipeline.many(self.images[indices], rng), self.labels[indices]
        except ValueError as error:
            raise DataError(self.named(int(indices[0]), str(error))) from error

    def where(self, index: int) -> str:
        """Return the data set's place and the image's number in it."""
        return f"{self.data_file}: {self.mode} image {index}"


@DATASETS.register
class Cifar10(_Cifar):
    """CIFAR-10: 50000 training and 10000 test images of 32 x 32 pixels in 10 classes.

    The pixels are held in memory (150 MB for training), shared by the processes that read them.

    Args:
        data_file: the official archive, in its Python or binary form; the folder that it unpacks to; or a
            folder with images, ``train/<class>/*.png`` and ``test/<class>/*.png``, or a zip of one; or the
            address of any archive. None takes the official archive from the cache, and from the network into
            the cache when it is not there.
        mode: ``train`` or ``test``.
        download: whether the network may be asked.
        backend: accepted for PaddleClas's files; images always travel as RGB arrays.
        transform_ops: operations, applied in this order; `DecodeImage` passes these images on as they are.
        sha256: the archive's digest, if it is not the official one; an archive under an official name is
            held against the official digest.
        sample_per_label: for semi-supervised training, which is not supported; leave it out.
        expand_labels: as ``sample_per_label``.

    Raises:
        DataError: not there, cut off, damaged, or not these classes.
        StorageError: not the expected archive, or it cannot be downloaded.
        ValueError: another ``mode``.

    YAML::

        - Cifar10: {data_file: ./dataset/cifar-10-python.tar.gz, mode: train}
    """

    official = CIFAR10


@DATASETS.register
class Cifar100(_Cifar):
    """CIFAR-100: 50000 training and 10000 test images of 32 x 32 pixels in 100 ("fine") classes.

    Arguments and errors as in `Cifar10`.

    YAML::

        - Cifar100: {data_file: ./dataset/cifar-100-python.tar.gz, mode: test}
    """

    official = CIFAR100


def _found(official: Official, data_file: str | None, download: bool, sha256: str | None) -> str:
    """Return where the data set is, its archive's digest checked."""
    if data_file is None:
        url, digest = official.url, next(iter(official.sha256.values()))
        if not download:
            raise DataError(f"data_file: not given, and download is false; give the path of {Path(url).name}")
        return str(fetch(url, sha256 or digest))
    archive, inside = archive_and_inside(data_file)
    if is_url(archive):
        address, _, fragment = archive.partition("#")
        known = official.sha256.get(os.path.basename(address))
        expected = expected_digest(fragment, sha256, without_secrets(address)) or known
        return local_folder(address + (f"#sha256={expected}" if expected else "") + (INSIDE + inside if inside else ""))
    if os.path.isdir(data_file):
        if sha256:
            raise DataError(f"{data_file}: sha256 is of an archive, but this is a folder; leave sha256 out")
        return data_file
    if not os.path.isfile(archive):
        here = "" if os.path.isabs(archive) else f"; paths start from the folder where the command runs, {os.getcwd()}"
        raise DataError(f"data_file: {archive}: no such file or folder{here}")
    expected = sha256 or official.sha256.get(os.path.basename(archive))
    if expected and (digest := sha256_of(archive)) != expected.lower():
        raise StorageError(
            f"{archive}: not the expected archive, its sha256 is {digest} instead of {expected}; "
            "download it again, or write its digest in sha256 if it is meant"
        )
    # A tar archive in the official form is read as it is; whatever else lies in an archive is unpacked.
    return data_file if data_file == archive and not archive.lower().endswith(".zip") else local_folder(data_file)


def _load_folder(place: str, official: Official, mode: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return images, labels and class names of ``place/mode/<class>/*``."""
    root = os.path.join(place, mode)
    if not os.path.isdir(root):
        raise DataError(f"{place}: neither CIFAR's official files nor a folder {mode}/<class>/*.png are in it")
    names, paths, labels = find_classes(root)
    if len(names) != official.num_classes:
        raise DataError(f"{root}: {len(names)} class folders, not {official.num_classes}; is it the other CIFAR?")
    images = np.empty((len(paths), SIDE, SIDE, 3), np.uint8)
    for index, path in enumerate(paths):
        image = functional.decode_image(path)
        if image.shape != (SIDE, SIDE, 3):
            height, width = image.shape[:2]
            raise DataError(
                f"{path}: {width} x {height} pixels, not {SIDE} x {SIDE}; for other images take ImageFolder"
            )
        images[index] = image
    return images, labels, names
