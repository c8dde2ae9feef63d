# SPDX-License-Identifier: Apache-2.0
"""How good a model is: every sample counted exactly once, over any number of processes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import paddle
from paddle import nn
from tqdm import tqdm

from ppcls.arch.output import logits_of
from ppcls.config.registry import EVALUATORS
from ppcls.engine.precision import Precision
from ppcls.metric import CombinedMetric
from ppcls.utils import dist
from ppcls.utils.errors import DataError
from ppcls.utils.logger import has_bar


@EVALUATORS.register
def classification(
    model: nn.Layer,
    loader: Iterable[tuple[paddle.Tensor, paddle.Tensor]],
    loss: nn.Layer | None,
    metric: CombinedMetric | None,
    precision: Precision | None = None,
) -> dict[str, float]:
    """Run a model over a data set.

    Args:
        model: left in the mode (training or evaluation) that it came in.
        loader: batches of images [N, C, H, W] and labels [N]; this process's share of the data set.
        loss: averaged over samples, with its parts.
        metric: counts samples.
        precision: what the model computes in; float32 without it.

    Returns:
        The mean of every loss part and every figure of the metric, by name, over all processes;
        ``num_samples`` is how many samples they stand for, and counts such as ``top1_correct`` how many are right.
        ``num_left_out`` is how many could not be read, if there are such.

    Raises:
        DataError: none could be read.
    """
    was_training = model.training
    model.eval()
    if metric:
        metric.reset()
    sums: dict[str, float] = {}
    num_samples = 0
    bar = tqdm(loader, "evaluate", disable=not (has_bar() and dist.is_main()), leave=False)
    try:
        for images, labels in bar:
            with paddle.no_grad(), (precision or Precision()).autocast():
                output = model(images)
                parts = loss(output, labels) if loss else {}
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(labels)
            if metric:
                metric.update(logits_of(output).astype("float32"), labels)
            num_samples += len(labels)
    finally:
        if was_training:
            model.train()
    return _over_ranks(sums, num_samples, getattr(loader, "num_left_out", 0), metric)


def _over_ranks(
    sums: dict[str, float], num_samples: int, num_left_out: int, metric: CombinedMetric | None
) -> dict[str, float]:
    # A process that got no batch at all does not know the names of the loss's parts.
    names = list(dict.fromkeys(name for names in dist.gathered(list(sums)) for name in names))
    counts = [num_samples, num_left_out]
    totals = dist.sum_over_ranks(np.array([*counts, *(sums.get(name, 0.0) for name in names)], np.float64))
    if not totals[0]:
        raise DataError(f"none of the {int(totals[1])} images of the evaluation can be read")
    result = {name: float(total / totals[0]) for name, total in zip(names, totals[2:])}
    if metric:
        metric.sync(dist.sum_over_ranks)
        result.update(metric.compute())
        result.update(metric.counts())
    left_out = {"num_left_out": int(totals[1])} if totals[1] else {}
    return {**result, "num_samples": int(totals[0]), **left_out}
