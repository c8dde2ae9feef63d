# SPDX-License-Identifier: Apache-2.0
"""A few real images of an experiment, to prove an export on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Union

import numpy as np

from ppcls.config import RunConfig
from ppcls.data.images import find_images
from ppcls.data.transforms.functional import decode_image, read_file
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
            logger.info("%s; comparing on other images", problems[0])
        if images:
            return images
    return []


def _intact(image: Image) -> Image:
    if isinstance(image, bytes):
        decode_image(image)
    return image


def _images_of_evaluation(config: RunConfig) -> list[Callable[[], Image]]:
    settings = config.DataLoader.Eval
    if settings is None:
        return []
    dataset = settings.dataset.source()
    indices = np.unique(np.linspace(0, len(dataset) - 1, NUM_IMAGES).astype(int))
    return [lambda index=int(index): dataset.read(index)[0] for index in indices]  # type: ignore[misc]


def _images_of_infer(config: RunConfig) -> list[Callable[[], Image]]:
    paths = find_images(config.Infer.infer_imgs, config.Infer.infer_list) if config.Infer else []
    return [partial(read_file, path) for path in paths[:NUM_IMAGES]]
