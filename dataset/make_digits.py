# SPDX-License-Identifier: Apache-2.0
"""Write dataset/digits: the handwritten digits of scikit-learn as PNG files with list files.

The result is the same on every machine: `python dataset/make_digits.py` (needs scikit-learn).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_digits

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
VALIDATION_FRACTION = 0.2
SEED = 0
HIGHEST = 16
"""Pixel values count the set dots in 4 x 4 blocks of a 32 x 32 bitmap: 0..16."""


def main() -> None:
    """Write the images, both lists and the label list beside this script."""
    root = Path(__file__).resolve().parent / "digits"
    digits = load_digits()
    images = np.rint(digits.images * (255 / HIGHEST)).astype(np.uint8)
    is_validation = validation_mask(digits.target)
    lines: dict[str, list[str]] = {"train_list.txt": [], "val_list.txt": []}
    for number, (image, label) in enumerate(zip(images, digits.target)):
        path = Path("images") / str(label) / f"{number:04d}.png"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(root / path), image):
            raise OSError(f"{root / path}: cannot be written")
        lines["val_list.txt" if is_validation[number] else "train_list.txt"].append(f"{path.as_posix()} {label}\n")
    lines["label_list.txt"] = [f"{label} {name}\n" for label, name in enumerate(NAMES)]
    for name, content in lines.items():
        (root / name).write_bytes("".join(content).encode())


def validation_mask(labels: np.ndarray) -> np.ndarray:
    """Return which samples are for validation: the same fraction of every class, by a fixed seed."""
    mask = np.zeros(len(labels), bool)
    words = np.random.Philox(key=SEED).random_raw(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        mask[members[np.argsort(words[members])][: round(len(members) * VALIDATION_FRACTION)]] = True
    return mask


if __name__ == "__main__":
    main()
