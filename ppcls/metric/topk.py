# SPDX-License-Identifier: Apache-2.0
"""Top-k accuracy, counted sample by sample."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import paddle
from paddle import Tensor

from ppcls.arch.output import logits_of
from ppcls.config.registry import METRICS

logger = logging.getLogger("ppcls")

CORRECT = "_correct"
"""What the name of a count ends in: ``top1_correct`` of so many samples are right."""


@METRICS.register
class TopkAcc:
    """Share of samples whose label is among the k largest logits.

    Counts are whole numbers, so neither the batch size nor the order of batches changes the result.
    Among equal logits the lower class index comes first. A row with a NaN counts as wrong.

    Args:
        topk: one or more k. With fewer than k classes every sample is correct; said once in the log.

    Attributes:
        names: the keys of the result, ``top1`` for k = 1.
        higher_is_better: always true.
        total: the number of samples so far.

    Raises:
        ValueError: ``topk`` is empty, repeats a k, or has a k below 1.

    YAML::

        - TopkAcc: {topk: [1, 5]}
    """

    higher_is_better = True

    def __init__(self, topk: int | list[int] | tuple[int, ...] = (1, 5)) -> None:
        self.topk = [topk] if isinstance(topk, int) else list(topk)
        if not self.topk or min(self.topk) < 1 or len(set(self.topk)) < len(self.topk):
            raise ValueError(f"topk must be one or more different numbers from 1 on; got {topk}")
        self.names = [f"top{k}" for k in self.topk]
        self._warned = False
        self.reset()

    def reset(self) -> None:
        """Forget every sample."""
        self.total = 0
        self._correct = np.zeros(len(self.topk), np.int64)
        self._on_device: Tensor | None = None

    @property
    def correct(self) -> np.ndarray:
        """The number of correct samples so far, int64, one entry for each k."""
        if self._on_device is not None:
            self._correct = self._correct + self._on_device.numpy()
            self._on_device = None
        return self._correct

    @paddle.no_grad()
    def update(self, logits: Any, labels: Tensor) -> None:
        """Count one batch; nothing is copied from the device until a result is asked for.

        Args:
            logits: [N, class_num], or a model's output that holds them.
            labels: int64 [N] or [N, 1], or soft labels [N, class_num], whose largest entry is the label.
        """
        logits = logits_of(logits)
        num_samples, class_num = logits.shape
        self._warn_of_few_classes(class_num)
        if labels.is_floating_point():
            labels = labels.argmax(axis=1)
        labels = labels.reshape([num_samples, 1])
        if logits.dtype in (paddle.float16, paddle.bfloat16):
            logits = logits.astype("float32")  # Paddle 3.3.1 has no take_along_axis for halves on a CPU
        own = paddle.take_along_axis(logits, labels, axis=1)
        ahead = (logits > own) | ((logits == own) & (paddle.arange(class_num) < labels))
        rank = ahead.astype("int64").sum(axis=1, keepdim=True)
        valid = ~paddle.isnan(logits).any(axis=1, keepdim=True)
        hits = ((rank < paddle.to_tensor(self.topk)) & valid).astype("int64").sum(axis=0)
        self._on_device = hits if self._on_device is None else self._on_device + hits
        self.total += num_samples

    def compute(self) -> dict[str, float]:
        """The accuracy for each k, 0 to 1, such as ``{"top1": 0.76, "top5": 0.93}``.

        Raises:
            ValueError: there was no sample.
        """
        if self.total == 0:
            raise ValueError("TopkAcc has seen no sample; is the data set empty?")
        return {name: int(correct) / self.total for name, correct in zip(self.names, self.correct)}

    def counts(self) -> dict[str, int]:
        """The number of correct samples for each k, such as ``{"top1_correct": 37657, "top5_correct": 46100}``."""
        return {f"{name}{CORRECT}": int(correct) for name, correct in zip(self.names, self.correct)}

    def sync(self, sum_over_ranks: Callable[[np.ndarray], np.ndarray]) -> None:
        """Replace the counts of this process by those of all.

        Args:
            sum_over_ranks: adds an int64 array over the processes, element by element.
        """
        sums = sum_over_ranks(np.append(self.correct, self.total))
        self._correct, self.total = np.asarray(sums[:-1], np.int64), int(sums[-1])

    def _warn_of_few_classes(self, class_num: int) -> None:
        if max(self.topk) > class_num and not self._warned:
            self._warned = True
            logger.warning("TopkAcc: with %d classes top%d is always 1", class_num, max(self.topk))
