# SPDX-License-Identifier: Apache-2.0
"""What looks wrong about data sets although it can be trained on; cheap enough for the start of every run.

No file is opened here, and ImageNet takes a fraction of a second. ``tools/check_data.py`` looks for all the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from ppcls.data.dataset import ImageDataset
from ppcls.data.list_file import ImageNetDataset
from ppcls.data.repeats import repeats, shared

_SHOWN = 5
_MORE = "tools/check_data.py names them all"


def doubts(train: ImageDataset, evaluated: ImageDataset | None) -> Iterator[str]:
    """Give a line for each doubt about training data, and about what the model will be evaluated on.

    Args:
        train: its labels are within the model's classes.
        evaluated: the other data set, if there is one.
    """
    without = np.flatnonzero(train.class_counts == 0)
    if len(without):
        some = ", ".join(map(str, without[:_SHOWN])) + (", ..." if len(without) > _SHOWN else "")
        counted = f"{len(without)} of the classes up to {int(train.labels.max())}"
        yield f"DataLoader.Train: {counted} have no image ({some}); the model cannot learn them"
    if not isinstance(train, ImageNetDataset):
        return
    digests = train.paths.digests()
    twice = contradictions(train, digests)
    if twice:
        one, other = (f"{train.labels[index]} in {train.where(index)}" for index in twice[0])
        yield (
            f"DataLoader.Train: the same image is listed with different labels, {len(twice)} times, "
            f"such as {one} and {other}; {_MORE}"
        )
    if isinstance(evaluated, ImageNetDataset) and os.path.abspath(evaluated.image_root) == os.path.abspath(
        train.image_root
    ):
        found, places = shared(digests, evaluated.paths.digests())
        if len(found):
            yield (
                f"DataLoader.Eval: {len(found)} of {len(evaluated)} images are trained on too, such as that of "
                f"{evaluated.where(found[0])} in {train.where(places[0])}; "
                f"figures say little about other images; {_MORE}"
            )


def contradictions(dataset: ImageNetDataset, digests: np.ndarray) -> list[tuple[int, int]]:
    """Return (first position, another position) for each path that is listed again with another label.

    Args:
        dataset: whose list.
        digests: of its paths.
    """
    found = []
    for group in repeats(digests):
        first: dict[str, int] = {}
        for position in map(int, group):
            earlier = first.setdefault(dataset.paths[position], position)
            if dataset.labels[earlier] != dataset.labels[position]:
                found.append((earlier, position))
    return found
