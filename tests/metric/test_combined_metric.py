# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import paddle
import pytest

from ppcls.metric import CombinedMetric, TopkAcc

LOGITS = paddle.to_tensor([[0.1, 0.9, 0.5], [0.4, 0.3, 0.2]])
LABELS = paddle.to_tensor([2, 0])


class Misses(TopkAcc):
    """The share of wrong samples, of which fewer are better."""

    higher_is_better = False

    def __init__(self) -> None:
        super().__init__(1)
        self.names = ["misses"]

    def compute(self) -> dict[str, float]:
        return {"misses": 1 - int(self.correct[0]) / self.total}


def test_results_of_all_metrics_in_one_dict():
    metric = CombinedMetric([TopkAcc(2), Misses()])
    metric.update(LOGITS, LABELS)
    assert metric.compute() == {"top2": 1.0, "misses": 0.5}
    assert metric.names == ["top2", "misses"]


def test_the_first_result_decides_which_model_is_best():
    first_up = CombinedMetric([TopkAcc([2, 1]), Misses()])
    assert (first_up.main, first_up.higher_is_better) == ("top2", True)
    first_down = CombinedMetric([Misses(), TopkAcc(1)])
    assert (first_down.main, first_down.higher_is_better) == ("misses", False)


def test_reset_and_sync_reach_every_metric():
    metric = CombinedMetric([TopkAcc(1), Misses()])
    metric.update(LOGITS, LABELS)
    metric.sync(lambda counts: 3 * counts)
    assert [part.total for part in metric.metrics] == [6, 6]
    metric.reset()
    assert [part.total for part in metric.metrics] == [0, 0]


def test_counts_are_those_of_the_metrics_that_count():
    class Share:
        names, higher_is_better = ["share"], True

        def update(self, logits, labels):
            pass

    metric = CombinedMetric([Share(), TopkAcc([1, 2])])
    metric.update(LOGITS, LABELS)
    assert metric.counts() == {"top1_correct": 1, "top2_correct": 2}


def test_two_results_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two metrics report top1"):
        CombinedMetric([TopkAcc([1, 5]), TopkAcc(1)])


def test_no_metric_is_refused():
    with pytest.raises(ValueError, match="list of metrics is empty"):
        CombinedMetric([])
