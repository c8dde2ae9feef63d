# SPDX-License-Identifier: Apache-2.0
import numpy as np
import paddle

from ppcls.engine.ema import ModelEMA


def state(model):
    return {name: tensor.numpy().astype(np.float64) for name, tensor in model.state_dict().items()}


def test_average_follows_the_formula_running_statistics_included(small_net):
    model = small_net(norm=True)
    ema = ModelEMA(model, 0.9)
    expected = state(model)
    rng = np.random.RandomState(0)
    for _ in range(3):
        for tensor in model.state_dict().values():
            tensor.set_value(rng.standard_normal(tensor.shape).astype("float32"))
        ema.update(model)
        expected = {name: 0.9 * value + 0.1 * state(model)[name] for name, value in expected.items()}
    assert any(name.endswith("_variance") for name in expected)
    for name, value in state(ema.model).items():
        np.testing.assert_allclose(value, expected[name], atol=1e-6)


def test_numbers_that_are_not_floating_are_copied(small_net):
    model = small_net()
    model.register_buffer("count", paddle.to_tensor([1], "int64"))
    ema = ModelEMA(model, 0.9)
    model.count.set_value(paddle.to_tensor([7], "int64"))
    ema.update(model)
    assert ema.model.count.item() == 7


def test_the_average_is_a_model_of_its_own_in_evaluation_mode(small_net):
    model = small_net(norm=True, dropout=0.5)
    model.train()
    ema = ModelEMA(model, 0.5)
    before = state(model)
    for parameter in model.parameters():
        parameter.set_value(parameter + 1)
    assert all(np.array_equal(value, before[name]) for name, value in state(ema.model).items())
    assert not ema.model.training
    assert all(parameter.stop_gradient for parameter in ema.model.parameters())
    assert model.training
    assert not model[0].weight.stop_gradient


def test_update_does_not_touch_the_model(small_net):
    model = small_net(norm=True)
    ema = ModelEMA(model, 0.5)
    before = state(model)
    ema.update(model)
    assert all(np.array_equal(value, before[name]) for name, value in state(model).items())
