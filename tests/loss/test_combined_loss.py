# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import paddle
import pytest

from ppcls.config.registry import Call
from ppcls.config.schema import LossItem
from ppcls.loss import CELoss, CombinedLoss, build_loss


class Fixed(paddle.nn.Layer):
    """Returns the given parts, whatever the model says."""

    def __init__(self, **parts: float) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, output, labels):
        return {name: paddle.to_tensor(value) for name, value in self.parts.items()}


def run(*losses: tuple[float, paddle.nn.Layer]) -> dict[str, float]:
    parts = CombinedLoss(list(losses))(paddle.zeros([1, 2]), paddle.zeros([1], "int64"))
    return {name: float(value) for name, value in parts.items()}


def test_parts_are_weighted_and_summed():
    assert run((0.5, Fixed(A=4.0)), (3.0, Fixed(B=1.0))) == {"A": 2.0, "B": 3.0, "loss": 5.0}


def test_one_loss_keeps_its_weight():
    assert run((0.25, Fixed(A=4.0))) == {"A": 1.0, "loss": 1.0}


def test_every_part_of_a_loss_with_several_counts():
    assert run((2.0, Fixed(A=1.0, B=2.0))) == {"A": 2.0, "B": 4.0, "loss": 6.0}


def test_parts_of_the_same_name_do_not_overwrite_each_other():
    parts = run((1.0, Fixed(A=1.0)), (1.0, Fixed(A=2.0)), (1.0, Fixed(A=4.0)))
    assert parts == {"A": 1.0, "A_2": 2.0, "A_3": 4.0, "loss": 7.0}


def test_a_part_named_loss_does_not_hide_the_sum():
    assert run((1.0, Fixed(loss=1.0)), (1.0, Fixed(A=2.0))) == {"loss_2": 1.0, "A": 2.0, "loss": 3.0}


def test_no_loss_is_refused():
    with pytest.raises(ValueError, match="list of losses is empty"):
        CombinedLoss([])


def test_a_loss_without_reduction_is_refused():
    with pytest.raises(ValueError, match="CELoss: reduction none gives no single value; use mean or sum"):
        CombinedLoss([(1.0, CELoss("none"))])


def test_gradient_of_the_sum_is_weighted():
    logits = paddle.zeros([1, 2])
    logits.stop_gradient = False
    loss = CombinedLoss([(0.5, CELoss()), (1.5, CELoss())])
    loss(logits, paddle.zeros([1], "int64"))["loss"].backward()
    np.testing.assert_allclose(logits.grad.numpy(), [[-1.0, 1.0]], rtol=1e-6)


def test_parameters_of_a_loss_are_found():
    linear = paddle.nn.Linear(2, 2)
    assert len(CombinedLoss([(1.0, linear)]).parameters()) == 2


def test_build_loss_calls_each_item():
    loss = build_loss([LossItem(Call(CELoss, {"epsilon": 0.1}), weight=0.5), LossItem(Call(CELoss))])
    assert loss.weights == [0.5, 1.0]
    assert [part.epsilon for part in loss.losses] == [0.1, None]


# PaddleClas ignores the weight of a single loss, so its figure for these is the one of weight 1.
WEIGHT_IGNORED = [{"CELoss": {"weight": 0.5, "epsilon": 0.1}}]


def test_agrees_with_paddleclas_except_where_it_is_corrected(reference):
    family = json.loads((reference / "loss" / "CombinedLoss.json").read_text())
    logits = paddle.to_tensor((np.random.RandomState(11).standard_normal((8, 10)) * 2).astype("float32"))
    labels = paddle.to_tensor(np.random.RandomState(12).randint(0, 10, (8, 1)).astype("int64"))
    checked = 0
    for case in family["cases"]:
        entries = case["params"]["config"]
        if any(list(entry) != ["CELoss"] for entry in entries):
            continue
        items = []
        for entry in entries:
            arguments = dict(entry["CELoss"])
            items.append(LossItem(weight=arguments.pop("weight"), loss=Call(CELoss, arguments)))
        result = case["result"]
        if entries == WEIGHT_IGNORED:
            result = {name: 0.5 * value for name, value in result.items()}
        parts = build_loss(items)(logits, labels)
        assert {name: float(value) for name, value in parts.items()} == pytest.approx(result, rel=2e-6)
        checked += 1
    assert checked == 2
