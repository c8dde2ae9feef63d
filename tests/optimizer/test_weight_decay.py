# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import paddle
import pytest

from ppcls.optimizer.weight_decay import decays_unless, exempt_from_regularization, exempt_parameters


@pytest.fixture
def model():
    return paddle.nn.Sequential(
        ("conv", paddle.nn.Conv2D(3, 4, 1)), ("norm", paddle.nn.BatchNorm2D(4)), ("out", paddle.nn.Linear(4, 2))
    )


@pytest.mark.parametrize(
    ("name_parts", "one_dimensional", "names"),
    [
        (None, False, []),
        ("norm", False, ["norm.weight", "norm.bias"]),
        (" norm  out.b ", False, ["norm.weight", "norm.bias", "out.bias"]),
        (None, True, ["conv.bias", "norm.weight", "norm.bias", "out.bias"]),
        ("out", True, ["conv.bias", "norm.weight", "norm.bias", "out.weight", "out.bias"]),
    ],
)
def test_exempt_are_those_of_a_name_and_those_of_one_dimension(model, name_parts, one_dimensional, names):
    assert list(exempt_parameters(model, name_parts, one_dimensional)) == names


def test_frozen_parameters_are_not_counted(model):
    model.norm.weight.stop_gradient = True
    assert list(exempt_parameters(model, "norm")) == ["norm.bias"]


def test_names_are_structured_ones_for_the_user_and_paddles_for_the_optimizer(model):
    decays = decays_unless(exempt_parameters(model, "out.bias").values())
    assert not decays(model.out.bias.name)
    assert decays(model.out.weight.name)
    assert decays("out.bias")


def test_a_mark_is_set_on_the_exempt_only(model):
    exempt_from_regularization(exempt_parameters(model, "out.bias").values())
    assert model.out.bias.regularizer._coeff == 0.0
    assert model.out.weight.regularizer is None
