# SPDX-License-Identifier: Apache-2.0
"""Images divided into training, validation and test, class by class."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

TRAIN, VAL, TEST = 0, 1, 2


def split(
    names: Sequence[str], labels: Sequence[int], contents: Sequence[Hashable], val: float, test: float, seed: int
) -> np.ndarray:
    """Return for each image which part it belongs to: ``TRAIN``, ``VAL`` or ``TEST``, uint8 [N].

    Of each class the part ``val`` of the images is for validation, rounded, and ``test`` for testing; at least one
    each where the class has enough images, and at least one is left to train on. Which ones depends on the seed and
    on names alone. Images of the same content stay together, at the place of the first name among them.

    Args:
        names: of the files, each once.
        labels: of the images.
        contents: equal for images of the same content.
        val: 0 to below 1.
        test: 0 to below 1.
        seed: any whole number.

    Raises:
        ValueError: a part is negative, or nothing is left to train on.
    """
    if not 0 <= val < 1 or not 0 <= test < 1 or val + test >= 1:
        raise ValueError(f"val and test must be parts of 1 that leave something to train on; got {val} and {test}")
    same: dict[Hashable, list[int]] = defaultdict(list)
    for index in sorted(range(len(names)), key=names.__getitem__):
        same[contents[index]].append(index)
    classes: dict[int, list[list[int]]] = defaultdict(list)
    for group in same.values():
        classes[labels[group[0]]].append(group)
    parts = np.full(len(names), TRAIN, np.uint8)
    for groups in classes.values():
        groups.sort(key=lambda group: _draw(seed, names[group[0]]))
        num_images = sum(map(len, groups))
        position = 0
        for part, fraction in ((VAL, val), (TEST, test)):
            wanted = max(1, round(fraction * num_images)) if fraction else 0
            taken = 0
            # The last group is for training, whatever the fractions say.
            while taken < wanted and position < len(groups) - 1:
                parts[groups[position]] = part
                taken += len(groups[position])
                position += 1
    return parts


def _draw(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogateescape")).digest()
