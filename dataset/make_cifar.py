# SPDX-License-Identifier: Apache-2.0
"""Turn a folder of 32 x 32 images into an archive in CIFAR's official form.

The folder has train/<class>/* and test/<class>/*; classes are numbered by their sorted names. The archive holds what
https://www.cs.toronto.edu/~kriz/cifar.html describes: five training batches (CIFAR-10) or one (CIFAR-100) and a test
batch, as Python pickles or in the binary form. Classes are mixed by a fixed order, so the same images always give
the same archive; its sha256 is printed at the end.
"""

import argparse
import gzip
import io
import os
import pickle
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), "..")))

from ppcls.data.cifar_files import CIFAR10, CIFAR100, IMAGE_BYTES, SIDE, Official
from ppcls.data.image_folder import find_classes
from ppcls.data.sampler import epoch_order
from ppcls.data.transforms import decode_image
from ppcls.utils.cli import run
from ppcls.utils.errors import DataError
from ppcls.utils.storage import sha256

PICKLE_PROTOCOL = 2


def load_split(folder: Path, official: Official) -> tuple[list[str], np.ndarray, np.ndarray, list[str]]:
    """Return class names, rows of pixels uint8 [N, 3072] in CIFAR's order, labels [N] and file names."""
    names, paths, labels = find_classes(str(folder))
    if len(names) != official.num_classes:
        raise DataError(f"{folder}: {len(names)} class folders, not {official.num_classes}")
    order = epoch_order(0, 0, len(paths))
    rows = np.empty((len(paths), IMAGE_BYTES), np.uint8)
    for row, index in enumerate(tqdm(order, folder.name, disable=not sys.stderr.isatty())):
        image = decode_image(paths[index])
        if image.shape != (SIDE, SIDE, 3):
            raise DataError(f"{paths[index]}: {image.shape[1]} x {image.shape[0]} pixels, not {SIDE} x {SIDE}")
        rows[row] = image.transpose(2, 0, 1).ravel()
    return names, rows, labels[order], [os.path.basename(paths[index]) for index in order]


def python_files(folder: Path, official: Official) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file of the Python form."""
    for mode in ("train", "test"):
        names, rows, labels, file_names = load_split(folder / mode, official)
        parts = official.python[mode]
        for number, indices in enumerate(np.array_split(np.arange(len(rows)), len(parts))):
            batch = {
                "batch_label": f"{mode} batch {number + 1} of {len(parts)}",
                official.label_key: labels[indices].tolist(),
                "data": rows[indices],
                "filenames": [file_names[index] for index in indices],
            }
            yield parts[number], pickle.dumps(batch, PICKLE_PROTOCOL)
    yield official.python["names"][0], pickle.dumps({official.names_key: names}, PICKLE_PROTOCOL)


def binary_files(folder: Path, official: Official) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file of the binary form; the coarse label of CIFAR-100, unknown here, is 0."""
    for mode in ("train", "test"):
        names, rows, labels, _ = load_split(folder / mode, official)
        records = np.zeros((len(rows), official.label_bytes + IMAGE_BYTES), np.uint8)
        records[:, official.label_bytes - 1] = labels
        records[:, official.label_bytes :] = rows
        parts = official.binary[mode]
        for name, part in zip(parts, np.array_split(records, len(parts))):
            yield name, part.tobytes()
    yield official.binary["names"][0], "".join(f"{name}\n" for name in names).encode()


FORMS = {"python": ("py", python_files), "binary": ("bin", binary_files)}


def main() -> None:
    """Read the command line and write the archive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds train/<class>/* and test/<class>/*")
    parser.add_argument("archive", type=Path, help="what is written, such as dataset/my-cifar-10.tar.gz")
    parser.add_argument("--classes", type=int, choices=(10, 100), default=10, help="which CIFAR (default: 10)")
    parser.add_argument("--form", choices=sorted(FORMS), default="python", help="python (default) or binary")
    arguments = parser.parse_args()
    official = CIFAR10 if arguments.classes == 10 else CIFAR100
    train, test = (find_classes(str(arguments.folder / mode))[0] for mode in ("train", "test"))
    if train != test:
        only = sorted(set(train) ^ set(test))[0]
        raise DataError(f"{arguments.folder}: the class {only!r} is only in one of train and test; both need the same")
    ending, files = FORMS[arguments.form]
    inside = f"cifar-{arguments.classes}-batches-{ending}" if arguments.classes == 10 else f"cifar-100-{arguments.form}"
    partial = arguments.archive.with_name(f".{arguments.archive.name}.partial")
    try:
        # No time stamps: the same images give the same bytes.
        with (
            open(partial, "wb") as raw,
            gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            for name, content in files(arguments.folder, official):
                member = tarfile.TarInfo(f"{inside}/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        os.replace(partial, arguments.archive)
    finally:
        partial.unlink(missing_ok=True)
    print(f"{arguments.archive}: sha256 {sha256(arguments.archive)}")


if __name__ == "__main__":
    run(main)
