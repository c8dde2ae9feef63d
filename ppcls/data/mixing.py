# SPDX-License-Identifier: Apache-2.0
"""How the samples of a batch are mixed with each other, and their labels in the same shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor

from ppcls.data.rng import SampleRng


class Box(NamedTuple):
    """Part of an image in pixels: rows ``top`` to ``bottom``, columns ``left`` to ``right``, ends excluded."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    @property
    def area(self) -> int:
        """How many pixels are in it."""
        return (self.bottom - self.top) * (self.right - self.left)


class Mix(NamedTuple):
    """What a batch is mixed of; sample i with sample ``partners[i]``.

    A list of shares or boxes has one entry for all samples, or one for each.

    Attributes:
        partners: the other sample of each.
        shares: what each pixel keeps of its own value, 0..1; the partner's value has the rest.
        boxes: where the partner's pixels take the place of one's own.
        label_shares: what each label keeps of itself.
        mask: float32 [H, W], the share of its own value for each pixel, in place of shares and boxes.
    """

    partners: Sequence[int]
    shares: list[float]
    boxes: list[Box]
    label_shares: list[float]
    mask: np.ndarray | None = None


def soft_labels(labels: Tensor, class_num: int, smoothing: float = 0.0) -> Tensor:
    """Return labels as shares of classes, float32 [N, class_num].

    Args:
        labels: int64 [N] or [N, 1], or soft labels already.
        class_num: number of classes.
        smoothing: share of each label that is spread evenly over all classes.
    """
    soft = labels if labels.is_floating_point() else F.one_hot(labels.reshape([-1]), class_num)
    return soft.astype("float32") * (1.0 - smoothing) + smoothing / class_num if smoothing else soft.astype("float32")


def mixed(images: Tensor, labels: Tensor, mix: Mix) -> tuple[Tensor, Tensor]:
    """Return new images and soft labels.

    Args:
        images: [N, C, H, W].
        labels: soft, float32 [N, class_num].
        mix: what of which sample.
    """
    partners = paddle.to_tensor(np.asarray(mix.partners, np.int64))
    others = images.index_select(partners)
    if mix.mask is not None:
        images = _weighted(images, others, paddle.to_tensor(mix.mask).astype(images.dtype))
    elif len(mix.shares) == 1 and len(mix.boxes) == 1:
        images = _mixed_alike(images, others, mix.shares[0], mix.boxes[0])
    else:
        images = _weighted(images, others, _own_shares(images, mix.shares, mix.boxes))
    share = paddle.to_tensor(np.array(mix.label_shares, np.float32)).reshape([-1, 1])
    return images, _weighted(labels, labels.index_select(partners), share)


def _mixed_alike(images: Tensor, others: Tensor, share: float, box: Box) -> Tensor:
    """The same for all samples, without a share for each pixel: it is done for every batch."""
    if share != 1.0:
        images = _weighted(images, others, share)
    if box.area:
        images = images.clone()
        here = (slice(None), slice(None), slice(box.top, box.bottom), slice(box.left, box.right))
        images[here] = others[here]
    return images


def _own_shares(images: Tensor, shares: list[float], boxes: list[Box]) -> Tensor:
    """The share of its own value for each pixel: [N, 1, H, W]."""
    top, bottom, left, right = paddle.to_tensor(np.array(boxes, np.int64)).T.unsqueeze(-1)
    rows, columns = paddle.arange(images.shape[2]), paddle.arange(images.shape[3])
    is_inside = ((rows >= top) & (rows < bottom)).unsqueeze(2) & ((columns >= left) & (columns < right)).unsqueeze(1)
    share = paddle.to_tensor(np.array(shares, np.float32)).reshape([-1, 1, 1])
    return paddle.where(is_inside, paddle.zeros_like(share), share).unsqueeze(1).astype(images.dtype)


def _weighted(own: Tensor, other: Tensor, share: Tensor | float) -> Tensor:
    return own * share + other * (1.0 - share)


def draw_box(rng: SampleRng, height: int, width: int, share: float) -> Box:
    """Draw a box with the proportions of the image that leaves ``share`` of it outside.

    Its middle is anywhere in the image; what would lie outside the image is cut off, so ask for its ``area``.
    """
    scale = (1.0 - share) ** 0.5
    half_height, half_width = int(height * scale) // 2, int(width * scale) // 2
    row, column = int(rng.integers(0, height)), int(rng.integers(0, width))
    return Box(
        max(row - half_height, 0),
        min(row + half_height, height),
        max(column - half_width, 0),
        min(column + half_width, width),
    )


def draw_box_within(rng: SampleRng, height: int, width: int, low: float, high: float) -> Box:
    """Draw a box inside the image whose sides are ``low`` to ``high`` of the image's."""
    box_height, box_width = (
        int(rng.integers(int(side * low), max(int(side * high), int(side * low) + 1))) for side in (height, width)
    )
    top = int(rng.integers(0, height - box_height))
    left = int(rng.integers(0, width - box_width))
    return Box(top, top + box_height, left, left + box_width)
