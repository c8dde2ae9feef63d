# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from typing import Any

import numpy as np
import paddle
import pytest

from ppcls.config.registry import OPTIMIZERS, Call
from ppcls.config.schema import OptimizerSettings, RegularizerSettings
from ppcls.optimizer import Constant, Cosine, build_optimizer, build_schedule

RATE = 0.1
WEIGHT = np.array([[1.0, -2.0], [3.0, 0.5]])
BIAS = np.array([0.4, -0.6])
# Gradients of the loss sum(weight * WEIGHT_GRADIENT) + sum(bias * BIAS_GRADIENT), the same at every step.
WEIGHT_GRADIENT = np.array([[0.3, -0.1], [0.2, 0.4]])
BIAS_GRADIENT = np.array([1.5, -2.0])


class Toy(paddle.nn.Layer):
    """Two parameters, ``layer.weight`` [2, 2] and ``layer.bias`` [2], and a loss that is linear in them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = paddle.nn.Linear(2, 2)
        self.layer.weight.set_value(WEIGHT.astype("float32"))
        self.layer.bias.set_value(BIAS.astype("float32"))

    def loss(self) -> paddle.Tensor:
        weight_term = (self.layer.weight * paddle.to_tensor(WEIGHT_GRADIENT.astype("float32"))).sum()
        return weight_term + (self.layer.bias * paddle.to_tensor(BIAS_GRADIENT.astype("float32"))).sum()


def settings(name: str, own: dict[str, Any] | None = None, **shared: Any) -> OptimizerSettings:
    return OptimizerSettings(
        optimizer=Call(OPTIMIZERS[name], own or {}), lr=Call(Constant, {"learning_rate": RATE}), **shared
    )


def train(made: OptimizerSettings, model: Toy | None = None, steps: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias after some steps."""
    model = model or Toy()
    optimizer = build_optimizer(made, model, build_schedule(made, epochs=1, step_each_epoch=steps))
    for _ in range(steps):
        model.loss().backward()
        optimizer.step()
        optimizer.clear_grad()
    return model.layer.weight.numpy(), model.layer.bias.numpy()


def sgd_step(value: np.ndarray, gradient: np.ndarray, decay: float = 0.0) -> np.ndarray:
    return value - RATE * (gradient + decay * value)


def momentum_steps(value, gradient, decay=0.0, nesterov=False, steps=2):
    velocity = np.zeros_like(value)
    for _ in range(steps):
        decayed = gradient + decay * value
        velocity = 0.9 * velocity + decayed
        value = value - RATE * (decayed + 0.9 * velocity if nesterov else velocity)
    return value


def adam_steps(value, gradient, l2=0.0, decoupled=0.0, steps=2):
    """Kingma and Ba, algorithm 1, with L2 in the gradient, or decay apart from it (Loshchilov and Hutter)."""
    first, second = np.zeros_like(value), np.zeros_like(value)
    for step in range(1, steps + 1):
        decayed = gradient + l2 * value
        value = value * (1 - RATE * decoupled)
        first = 0.9 * first + 0.1 * decayed
        second = 0.999 * second + 0.001 * decayed**2
        value = value - RATE * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return value


def assert_close(actual: tuple[np.ndarray, np.ndarray], weight: np.ndarray, bias: np.ndarray) -> None:
    np.testing.assert_allclose(actual[0], weight, rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(actual[1], bias, rtol=2e-6, atol=1e-7)


L2 = RegularizerSettings("L2", 0.25)
L1 = RegularizerSettings("L1", 0.25)


def test_sgd():
    assert_close(train(settings("SGD"), steps=1), sgd_step(WEIGHT, WEIGHT_GRADIENT), sgd_step(BIAS, BIAS_GRADIENT))


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_with_l2_on_every_parameter(nesterov):
    made = settings("Momentum", {"momentum": 0.9, "use_nesterov": nesterov}, regularizer=L2)
    assert_close(
        train(made),
        momentum_steps(WEIGHT, WEIGHT_GRADIENT, 0.25, nesterov),
        momentum_steps(BIAS, BIAS_GRADIENT, 0.25, nesterov),
    )


def test_rmsprop():
    made = settings("RMSProp", {"rho": 0.9, "momentum": 0.5, "epsilon": 1e-3})
    mean_square, velocity, weight = 0.0, 0.0, WEIGHT
    for _ in range(2):
        mean_square = 0.9 * mean_square + 0.1 * WEIGHT_GRADIENT**2
        velocity = 0.5 * velocity + RATE * WEIGHT_GRADIENT / np.sqrt(mean_square + 1e-3)
        weight = weight - velocity
    np.testing.assert_allclose(train(made)[0], weight, rtol=2e-6)


def test_adam_puts_l2_into_the_gradient():
    assert_close(
        train(settings("Adam", regularizer=L2)),
        adam_steps(WEIGHT, WEIGHT_GRADIENT, l2=0.25),
        adam_steps(BIAS, BIAS_GRADIENT, l2=0.25),
    )


def test_adamw_decays_apart_from_the_gradient():
    assert_close(
        train(settings("AdamW", {"weight_decay": 0.3})),
        adam_steps(WEIGHT, WEIGHT_GRADIENT, decoupled=0.3),
        adam_steps(BIAS, BIAS_GRADIENT, decoupled=0.3),
    )


def test_adamw_without_weight_decay_takes_paddles_default():
    assert_close(
        train(settings("AdamW")),
        adam_steps(WEIGHT, WEIGHT_GRADIENT, decoupled=0.01),
        adam_steps(BIAS, BIAS_GRADIENT, decoupled=0.01),
    )


def test_l1_adds_the_sign():
    weight, bias = train(settings("Momentum", regularizer=L1), steps=1)
    assert_close(
        (weight, bias),
        sgd_step(WEIGHT, WEIGHT_GRADIENT + 0.25 * np.sign(WEIGHT)),
        sgd_step(BIAS, BIAS_GRADIENT + 0.25 * np.sign(BIAS)),
    )


EXEMPT_BIAS = [{"no_weight_decay_name": "norm .bias"}, {"one_dim_param_no_weight_decay": True}]


@pytest.mark.parametrize("exemption", EXEMPT_BIAS, ids=["by name", "one dimension"])
def test_adamw_exempts_from_decay(exemption):
    assert_close(
        train(settings("AdamW", {"weight_decay": 0.3}, **exemption)),
        adam_steps(WEIGHT, WEIGHT_GRADIENT, decoupled=0.3),
        adam_steps(BIAS, BIAS_GRADIENT),
    )


@pytest.mark.parametrize("exemption", EXEMPT_BIAS, ids=["by name", "one dimension"])
@pytest.mark.parametrize("name", ["SGD", "Momentum", "Adam"])
def test_others_exempt_from_l2(name, exemption):
    steps = {
        "SGD": sgd_step,
        "Momentum": lambda *a: momentum_steps(*a, steps=1),
        "Adam": lambda *a: adam_steps(*a, steps=1),
    }
    made = settings(name, regularizer=L2, **exemption)
    assert_close(train(made, steps=1), steps[name](WEIGHT, WEIGHT_GRADIENT, 0.25), steps[name](BIAS, BIAS_GRADIENT))


def test_weight_decay_without_a_regularizer_is_l2_and_obeys_exemptions():
    made = settings("Momentum", {"weight_decay": 0.25}, one_dim_param_no_weight_decay=True)
    assert_close(train(made, steps=1), sgd_step(WEIGHT, WEIGHT_GRADIENT, 0.25), sgd_step(BIAS, BIAS_GRADIENT))


def test_exemption_from_l1():
    made = settings("Momentum", regularizer=L1, one_dim_param_no_weight_decay=True)
    weight = sgd_step(WEIGHT, WEIGHT_GRADIENT + 0.25 * np.sign(WEIGHT))
    assert_close(train(made, steps=1), weight, sgd_step(BIAS, BIAS_GRADIENT))


def test_exemption_leaves_other_attributes_of_parameters_alone():
    model = Toy()
    model.layer.weight.regularizer = paddle.regularizer.L2Decay(0.5)
    model.layer.weight.optimize_attr["learning_rate"] = 2.0
    made = settings("Momentum", regularizer=L2, one_dim_param_no_weight_decay=True)
    weight, _ = train(made, model, steps=1)
    np.testing.assert_allclose(weight, WEIGHT - 2 * RATE * (WEIGHT_GRADIENT + 0.5 * WEIGHT), rtol=2e-6)


def test_clip_norm_is_per_parameter():
    # The norms are 0.547 and 2.5: only the bias is clipped.
    weight, bias = train(settings("SGD", clip_norm=1.0), steps=1)
    assert_close((weight, bias), sgd_step(WEIGHT, WEIGHT_GRADIENT), sgd_step(BIAS, BIAS_GRADIENT / 2.5))


@pytest.mark.parametrize("exempt", [False, True])
def test_clip_global_norm_is_over_all_parameters_exempt_ones_too(exempt):
    norm = np.sqrt((WEIGHT_GRADIENT**2).sum() + (BIAS_GRADIENT**2).sum())
    made = settings("SGD", clip_global_norm=1.0, regularizer=L2, one_dim_param_no_weight_decay=exempt)
    weight = sgd_step(WEIGHT, WEIGHT_GRADIENT / norm, 0.25)
    assert_close(train(made, steps=1), weight, sgd_step(BIAS, BIAS_GRADIENT / norm, 0.0 if exempt else 0.25))


def test_frozen_parameters_are_left_out():
    model = Toy()
    model.layer.bias.stop_gradient = True
    made = settings("Momentum", regularizer=L2)
    optimizer = build_optimizer(made, model, build_schedule(made, 1, 1))
    assert [parameter.name for parameter in optimizer._parameter_list] == [model.layer.weight.name]
    np.testing.assert_array_equal(train(made, model)[1], BIAS.astype("float32"))


def test_a_model_that_is_frozen_altogether_is_refused():
    model = Toy()
    for parameter in model.parameters():
        parameter.stop_gradient = True
    with pytest.raises(ValueError, match="every parameter of the model is frozen"):
        train(settings("SGD"), model)


def test_regularizer_takes_the_place_of_weight_decay_and_says_so(caplog):
    with caplog.at_level(logging.WARNING, logger="ppcls"):
        made = settings("Momentum", {"weight_decay": 9.0}, regularizer=L2)
        weight, _ = train(made, steps=1)
    np.testing.assert_allclose(weight, sgd_step(WEIGHT, WEIGHT_GRADIENT, 0.25), rtol=2e-6)
    assert "regularizer takes the place of weight_decay" in caplog.text
    assert made.optimizer.kwargs == {"weight_decay": 9.0}


def test_a_name_that_fits_no_parameter_is_said(caplog):
    with caplog.at_level(logging.WARNING, logger="ppcls"):
        train(settings("AdamW", no_weight_decay_name=".bias pos_embed"))
    assert "pos_embed is in no parameter name; names look like 'layer.weight'" in caplog.text


def test_an_exemption_from_nothing_is_said(caplog):
    with caplog.at_level(logging.WARNING, logger="ppcls"):
        train(settings("SGD", one_dim_param_no_weight_decay=True))
    assert "have no effect without a regularizer" in caplog.text


@pytest.mark.parametrize(
    ("name", "shared", "message"),
    [
        ("SGD", {"clip_norm": 1.0, "clip_global_norm": 1.0}, "exclude each other"),
        ("SGD", {"clip_norm": 0.0}, "clip_norm must be above 0"),
        ("SGD", {"clip_global_norm": -1.0}, "clip_global_norm must be above 0"),
        ("AdamW", {"regularizer": L2}, "write weight_decay instead of regularizer"),
    ],
)
def test_settings_that_cannot_be_obeyed_are_refused(name, shared, message):
    with pytest.raises(ValueError, match=message):
        train(settings(name, **shared))


def test_build_schedule_supplies_the_length_of_the_training():
    made = OptimizerSettings(Call(OPTIMIZERS["SGD"]), Call(Cosine, {"learning_rate": 0.5}))
    assert build_schedule(made, epochs=2, step_each_epoch=3).rate(3) == pytest.approx(0.25)


def test_a_rate_without_a_schedule_is_constant():
    made = OptimizerSettings(Call(OPTIMIZERS["SGD"]), lr=0.25)
    assert [build_schedule(made, epochs=2, step_each_epoch=3).rate(step) for step in (0, 5)] == [0.25, 0.25]


def test_paddles_own_classes_are_registered():
    assert [OPTIMIZERS[name] for name in ("Momentum", "AdamW")] == [paddle.optimizer.Momentum, paddle.optimizer.AdamW]
    assert {"SGD", "RMSProp", "Adam"} <= set(OPTIMIZERS)


def test_the_optimizer_follows_the_schedule():
    model = Toy()
    made = OptimizerSettings(Call(OPTIMIZERS["AdamW"]), Call(Cosine, {"learning_rate": 0.5}))
    schedule = build_schedule(made, epochs=1, step_each_epoch=2)
    optimizer = build_optimizer(made, model, schedule)
    assert optimizer.get_lr() == 0.5
    schedule.step()
    assert optimizer.get_lr() == pytest.approx(0.25)
