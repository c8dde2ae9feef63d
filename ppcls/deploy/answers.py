# SPDX-License-Identifier: Apache-2.0
"""Answers for images, a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ppcls.data.images import load_image
from ppcls.utils.errors import DataError, NumericsError, StorageError


def answers(
    logits_of_images: Callable[[np.ndarray], np.ndarray],
    paths: Sequence[str],
    transforms: Sequence[Any],
    postprocess: Callable[[np.ndarray, list[str]], list[dict[str, Any]]],
    batch_size: int,
    dtype: str = "float32",
) -> Iterator[dict[str, Any]]:
    """One result per path, in the order of the paths; an image that cannot be read gives its ``error`` instead.

    Args:
        logits_of_images: float32 [N, C, H, W] to [N, class_num].
        paths: image files.
        transforms: from the file's bytes to the model's input.
        postprocess: from logits and file names to results.
        batch_size: images answered at once.
        dtype: what the transforms end in.

    Raises:
        NumericsError: the model gives an answer that is not finite.
    """
    for start in range(0, len(paths), batch_size):
        chunk = paths[start : start + batch_size]
        results: dict[int, dict[str, Any]] = {}
        of_one_shape: dict[tuple[int, ...], dict[int, np.ndarray]] = {}
        for index, path in enumerate(chunk):
            try:
                image = load_image(path, transforms, dtype)
                of_one_shape.setdefault(image.shape, {})[index] = image
            except DataError as error:
                results[index] = {"file_name": path, "error": str(error)}
        for images in of_one_shape.values():
            first, *others = images.values()
            batch = np.stack([first, *others]) if others else first[None]
            found = answer_batch(logits_of_images, batch, postprocess, [chunk[index] for index in images])
            results.update(zip(images, found))
        yield from (results[index] for index in range(len(chunk)))


def answer_batch(
    logits_of_images: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    postprocess: Callable[[np.ndarray, list[str]], list[dict[str, Any]]],
    names: list[str],
) -> list[dict[str, Any]]:
    """One result for each image of a batch that is ready for the model.

    Raises:
        NumericsError: the model gives an answer that is not finite.
        StorageError: the postprocessing loses answers.
    """
    logits = logits_of_images(images)
    if not np.isfinite(logits).all():
        raise NumericsError(f"{names[0]}: the model's answer is not finite; are its weights damaged?")
    results = postprocess(logits, names)
    if len(results) != len(names):
        raise StorageError(f"{names[0]}: the postprocessing gives {len(results)} results for {len(names)} images")
    return results
