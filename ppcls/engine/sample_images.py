# SPDX-License-Identifier: Apache-2.0
"""A few real images of an experiment, to prove an export on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Union

import numpy as np

from ppcls.config import RunConfig
from ppcls.data.images import find_images, transform_image
from ppcls.data.transforms.functional import decode_image, read_file
from ppcls.data.transforms.tensor import ToCHWImage
from ppcls.utils.errors import DataError
from ppcls.utils.logger import logger

NUM_IMAGES = 32

Image = Union[bytes, np.ndarray]
"""A file's bytes, or a decoded image, uint8 [H, W, 3]."""


def sample_images(config: RunConfig) -> list[Image]:
    """Images spread over the evaluation set, else those that ``Infer`` names, else none; bad ones are left out."""
    for find in (_images_of_evaluation, _images_of_infer):
        images: list[Image] = []
        problems: list[DataError] = []
        try:
            for read in find(config):
                try:
                    images.append(_intact(read()))
                except DataError as error:
                    problems.append(error)
        except DataError as error:
            problems.append(error)
        if problems:
            left = f"comparing on {len(images)} others" if images else "none is left of these"
            logger.warning("%d images cannot be read: %s; %s", len(problems), problems[0], left)
        if images:
            return images
    return []


def prepared_otherwise(config: RunConfig, transforms: Sequence[Any]) -> tuple[int, int]:
    """How many sample images of the evaluation it prepares otherwise than the transforms do, and of how many."""
    if config.DataLoader.Eval is None:
        return 0, 0
    calls = config.DataLoader.Eval.dataset.source.kwargs.get("transform_ops") or []
    own = [call() for call in calls if call.target is not ToCHWImage]
    same = []
    for read in _images_of_evaluation(config):
        try:
            image = read()
            prepared = transform_image(image, transforms, "")
            in_evaluation = transform_image(image, own, "")
        except DataError:
            continue  # told of elsewhere
        # A data set moves the axes by itself.
        same.append(any(np.array_equal(prepared, each) for each in (in_evaluation, in_evaluation.transpose(2, 0, 1))))
    return same.count(False), len(same)


def spread(length: int, number: int) -> list[int]:
    """As many indices, at most, from the first to the last of a data set."""
    return np.unique(np.linspace(0, length - 1, number).astype(int)).tolist()


def _intact(image: Image) -> Image:
    if isinstance(image, bytes):
        decode_image(image)
    return image


def _images_of_evaluation(config: RunConfig) -> list[Callable[[], Image]]:
    settings = config.DataLoader.Eval
    if settings is None:
        return []
    dataset = settings.dataset.source()
    indices = spread(len(dataset), NUM_IMAGES)
    return [lambda index=index: dataset.read(index)[0] for index in indices]  # type: ignore[misc]


def _images_of_infer(config: RunConfig) -> list[Callable[[], Image]]:
    paths = find_images(config.Infer.infer_imgs, config.Infer.infer_list) if config.Infer else []
    return [partial(read_file, path) for path in paths[:NUM_IMAGES]]
