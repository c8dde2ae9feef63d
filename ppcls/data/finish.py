# SPDX-License-Identifier: Apache-2.0
"""The last operations of a recipe, on whole batches where the model runs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import cv2
import numpy as np
import paddle
from paddle import Tensor

from ppcls.data.batch_ops import BatchOps
from ppcls.data.transforms.transform import Transform


class Finish:
    """From the batches that workers make to those that a model takes.

    Workers then pass on uint8, a fourth of the bytes. The numbers are those of the operations one by one.

    Args:
        ops: the operations, each with a ``finish``.
        is_channel_first: whether the batches come as [N, C, H, W]; otherwise as [N, H, W, C].
        batch_ops: what comes behind; None for nothing.
        on_device: compute with tensors; otherwise with arrays, which on a CPU takes a tenth of the time
            (Paddle 3.3.1 broadcasts slowly there). None: by the device that is set.
    """

    def __init__(
        self,
        ops: Sequence[Transform],
        is_channel_first: bool,
        batch_ops: BatchOps | None = None,
        on_device: bool | None = None,
    ) -> None:
        self.ops = list(ops)
        self.is_channel_first = is_channel_first
        self.batch_ops = batch_ops
        self.on_device = paddle.get_device() != "cpu" if on_device is None else on_device

    def __call__(self, images: np.ndarray, labels: np.ndarray, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
        """Return images [N, C, H, W] and labels.

        Args:
            images: as the workers made them.
            labels: int64 [N].
            epoch: from 1 on.
            batch: of the epoch, from 0 on.
        """
        if self.on_device:
            tensor = paddle.to_tensor(images)
            tensor = self._finished(tensor if self.is_channel_first else tensor.transpose([0, 3, 1, 2]))
        else:
            finished = self._looked_up(images)
            if finished is None:
                finished = self._finished(images if self.is_channel_first else images.transpose(0, 3, 1, 2).copy())
            # Without a copy where the batch is new memory; what workers made is memory that they use again.
            is_new = not np.may_share_memory(finished, images)
            tensor = paddle.from_dlpack(finished if is_new else finished.copy())
        # Labels are few: a copy in NumPy and none in Paddle is the quickest.
        label_tensor = paddle.to_tensor(labels) if self.on_device else paddle.from_dlpack(labels.copy())
        return self.batch_ops(tensor, label_tensor, epoch, batch) if self.batch_ops else (tensor, label_tensor)

    def _finished(self, images: np.ndarray | Tensor) -> np.ndarray | Tensor:
        for op in self.ops:
            images = op.finish(images)
        return images

    def _looked_up(self, images: np.ndarray) -> np.ndarray | None:
        """Return a batch of uint8 RGB finished by a table; None where that is not possible."""
        if self.is_channel_first or images.dtype != np.uint8 or images.shape[3] != 3 or self._table is None:
            return None
        num, height, width, _ = images.shape
        result = np.empty((num, 3, height, width), np.float32)
        # One above the other, the images are one.
        for channel, plane in enumerate(cv2.split(images.reshape(num * height, width, 3))):
            result[:, channel] = cv2.LUT(plane, self._table[channel]).reshape(num, height, width)
        return result

    @cached_property
    def _table(self) -> np.ndarray | None:
        """What the operations make of each of the 256 levels in each channel, float32 [3, 256]; None if they cannot."""
        levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(256, 3, 1, 1)
        table = self._finished(levels)
        if table.dtype != np.float32 or table.shape != levels.shape:
            return None
        return np.ascontiguousarray(table[:, :, 0, 0].T)
