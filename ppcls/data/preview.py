# SPDX-License-Identifier: Apache-2.0
"""What a recipe does to images, as images again that a person can look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import paddle

from ppcls.data.batch_ops import BatchOp, BatchOps
from ppcls.data.pipeline import Pipeline
from ppcls.data.rng import SampleRng
from ppcls.data.transforms import functional
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.tensor import Normalize, NormalizeImage, ToTensor
from ppcls.utils.errors import DataError

LEAST_SHARE = 0.02
"""From which share on an image that was mixed in is named."""


class Sample(NamedTuple):
    """An image as it is stored.

    Attributes:
        name: what messages and labels call it.
        image: a file's bytes, or uint8 [H, W, 3] in the order R, G, B.
    """

    name: str
    image: bytes | np.ndarray


class Shown(NamedTuple):
    """One picture, and what is written below it.

    Attributes:
        image: uint8 [H, W, 3].
        text: one line; empty for none.
    """

    image: np.ndarray
    text: str = ""


def original(sample: Sample) -> np.ndarray:
    """Return a sample decoded, and nothing else done.

    Raises:
        DataError: it is no intact image.
    """
    return sample.image if isinstance(sample.image, np.ndarray) else functional.decode_image(sample.image, sample.name)


def transformed(samples: Sequence[Sample], pipeline: Pipeline, seed: int, epoch: int) -> list[np.ndarray]:
    """Return what a training makes of the samples, [C, H, W] each.

    Args:
        samples: the first of a data set, in its order: a sample's place decides what is drawn for it.
        pipeline: the operations.
        seed: of the run.
        epoch: from 1 on.

    Raises:
        DataError: a sample is no intact image, or does not suit the operations.
    """
    images = []
    for index, sample in enumerate(samples):
        try:
            images.append(pipeline(sample.image, SampleRng(seed, epoch, index)))
        except (DataError, ValueError) as error:
            raise DataError(f"{sample.name}: {str(error).removeprefix('image: ')}") from error
    return images


def mixed(
    images: Sequence[np.ndarray], ops: Sequence[BatchOp], class_num: int, seed: int, epoch: int
) -> tuple[np.ndarray, list[str]]:
    """Return the images [N, C, H, W] as the first batch of an epoch, and of which rows, from 1 on, each is mixed.

    Args:
        images: float32 [C, H, W] each.
        ops: the operations on batches.
        class_num: number of classes of the operations; with more images than that the rows are not told.
        seed: of the run.
        epoch: from 1 on.

    Raises:
        DataError: the images differ in size.
        ValueError: they do not suit the operations.
    """
    if len({image.shape for image in images}) > 1:
        raise DataError("batch_transform_ops: the images have different sizes after transform_ops; crop them to one")
    rows = np.arange(len(images), dtype=np.int64)
    batch_ops = BatchOps(ops, class_num, seed)
    labels = paddle.to_tensor(rows % class_num)
    batch, shares = batch_ops(paddle.to_tensor(np.stack(images).astype(np.float32)), labels, epoch, 0)
    texts = [_told(share[: len(images)]) for share in shares.numpy()]
    return batch.numpy(), texts if len(images) <= class_num else [""] * len(images)


def _told(shares: np.ndarray) -> str:
    ordered = np.argsort(-shares, kind="stable")
    parts = [f"{shares[row]:.0%} of {row + 1}" for row in ordered if shares[row] >= LEAST_SHARE]
    return " + ".join(parts)


def viewable(image: np.ndarray, pipeline: Pipeline) -> np.ndarray:
    """Return what the operations made of an image, [C, H, W], with its colours as they were: uint8 [H, W, 3]."""
    levels = image[:3].astype(np.float32).transpose(1, 2, 0)
    for op in reversed(pipeline.ops):
        if isinstance(op, NormalizeImage):
            levels = (levels * np.float32(op.std) + np.float32(op.mean)) / op.scale
        elif isinstance(op, Normalize):
            levels = levels * np.float32(op.std) + np.float32(op.mean)
            levels = levels[:, :, ::-1] if op.to_rgb else levels
        elif isinstance(op, ToTensor):
            levels = levels * 255
        elif isinstance(op, DecodeImage) and not op.to_rgb:
            levels = levels[:, :, ::-1]
    return np.rint(levels).clip(0, 255).astype(np.uint8)
