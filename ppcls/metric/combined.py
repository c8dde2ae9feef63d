# SPDX-License-Identifier: Apache-2.0
"""Several metrics behind the face of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from paddle import Tensor


class Metric(Protocol):
    """What evaluation asks of a metric: ``reset``, ``update`` per batch, ``sync`` over processes, ``compute``.

    A metric that counts may have ``counts``, which gives whole numbers of samples by name.

    Attributes:
        names: the keys of the result, known before any sample.
        higher_is_better: whether a larger first result means a better model.
    """

    names: list[str]
    higher_is_better: bool

    def reset(self) -> None:
        """Forget every sample."""

    def update(self, logits: Any, labels: Tensor) -> None:
        """Count one batch: logits [N, class_num], labels [N]."""

    def compute(self) -> dict[str, float]:
        """The results by name, each 0 to 1."""

    def sync(self, sum_over_ranks: Callable[[np.ndarray], np.ndarray]) -> None:
        """Replace this process's sums by those over all processes."""


class CombinedMetric:
    """Several metrics, fed with the same batches; their results in one dict.

    Args:
        metrics: the metrics; the first result of the first one decides which model is best.

    Attributes:
        names: the keys of the result, in the order of the metrics.
        main: the name of the result that decides.
        higher_is_better: whether a larger main result means a better model.

    Raises:
        ValueError: there is no metric, or two share a result name.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        if not metrics:
            raise ValueError("the list of metrics is empty; give at least one, such as - TopkAcc: {topk: [1, 5]}")
        self.metrics = list(metrics)
        self.names = [name for metric in self.metrics for name in metric.names]
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise ValueError(f"two metrics report {', '.join(repeated)}; leave one of them out")
        self.main = self.names[0]
        self.higher_is_better = self.metrics[0].higher_is_better

    def reset(self) -> None:
        """Forget every sample."""
        for metric in self.metrics:
            metric.reset()

    def update(self, logits: Any, labels: Tensor) -> None:
        """Count one batch in every metric."""
        for metric in self.metrics:
            metric.update(logits, labels)

    def compute(self) -> dict[str, float]:
        """All results by name, in the order of ``names``."""
        return {name: value for metric in self.metrics for name, value in metric.compute().items()}

    def counts(self) -> dict[str, int]:
        """What the metrics have counted, by name; nothing from those that do not count."""
        return {name: count for each in self.metrics for name, count in getattr(each, "counts", dict)().items()}

    def sync(self, sum_over_ranks: Callable[[np.ndarray], np.ndarray]) -> None:
        """Replace this process's sums by those over all processes, in every metric."""
        for metric in self.metrics:
            metric.sync(sum_over_ranks)
