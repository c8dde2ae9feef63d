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


def sample_images(config: RunConfig, transforms: Sequence[Any]) -> list[Image]:
    """Images spread over the evaluation set, else those that ``Infer`` names, else none; bad ones are left out.

    Args:
        config: the experiment.
        transforms: from an image to the model's input; a warning says so when the evaluation has others.
    """
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
            more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
            logger.warning("%s%s; comparing on other images, %d of these", problems[0], more, len(images))
        if images:
            if find is _images_of_evaluation and (number := num_prepared_otherwise(config, images, transforms)):
                logger.warning(
                    "Infer.transforms prepare %d of %d images of the evaluation otherwise than its transform_ops do, "
                    "and a deployed model does as they say: its accuracy may be another; evaluate it by Global.bundle",
                    *(number, len(images)),
                )
            return images
    return []


def num_prepared_otherwise(config: RunConfig, images: Sequence[Image], transforms: Sequence[Any]) -> int:
    """How many images ``DataLoader.Eval`` prepares otherwise than the transforms do."""
    assert config.DataLoader.Eval is not None
    calls = config.DataLoader.Eval.dataset.source.kwargs.get("transform_ops") or []
    own = [call() for call in calls if call.target is not ToCHWImage]
    number = 0
    for image in images:
        try:
            prepared, in_evaluation = (transform_image(image, each, "") for each in (transforms, own))
        except DataError:
            continue  # one that does not suit them is told of where it is used
        # A data set moves the axes by itself.
        number += not any(np.array_equal(prepared, each) for each in (in_evaluation, in_evaluation.transpose(2, 0, 1)))
    return number


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
