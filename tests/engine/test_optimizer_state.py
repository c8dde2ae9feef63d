# SPDX-License-Identifier: Apache-2.0
import numpy as np
import paddle
import pytest

from ppcls.engine.optimizer_state import optimizer_tensors, restore_optimizer
from ppcls.optimizer.schedule import Constant
from ppcls.utils.errors import StorageError


def trained(model):
    rate = Constant(10, 10, 0.1)
    optimizer = paddle.optimizer.Momentum(rate, 0.9, model.parameters())
    model(paddle.ones([2, 3])).sum().backward()
    optimizer.step()
    return optimizer, rate


def test_keys_are_structured_names_and_values_the_velocity():
    model = paddle.nn.Sequential(paddle.nn.Linear(3, 2), paddle.nn.ReLU(), paddle.nn.Linear(2, 1))
    weight = model[2].weight
    optimizer, _ = trained(model)
    tensors = optimizer_tensors(optimizer, model)
    names = {key.partition("/")[0] for key in tensors}
    assert names == {"0.weight", "0.bias", "2.weight", "2.bias"}
    # The first velocity is the gradient.
    np.testing.assert_array_equal(tensors["2.weight/velocity_0"], weight.grad.numpy())


def test_two_models_in_one_process_have_the_same_keys():
    first, second = paddle.nn.Linear(3, 2), paddle.nn.Linear(3, 2)
    assert first.weight.name != second.weight.name
    keys = [set(optimizer_tensors(trained(model)[0], model)) for model in (first, second)]
    assert keys[0] == keys[1]


def test_a_name_that_begins_like_another_is_not_confused():
    # Paddle numbers layers: linear_1 and linear_10 begin alike.
    model = paddle.nn.Sequential(*[paddle.nn.Linear(3, 3) for _ in range(12)])
    tensors = optimizer_tensors(trained(model)[0], model)
    for name, parameter in model.named_parameters():
        np.testing.assert_array_equal(tensors[f"{name}/velocity_0"], parameter.grad.numpy())


def test_state_of_another_model_is_refused_by_name():
    small, large = paddle.nn.Sequential(paddle.nn.Linear(3, 2)), paddle.nn.Linear(3, 2)
    tensors = optimizer_tensors(trained(small)[0], small)
    optimizer, rate = trained(large)
    with pytest.raises(StorageError, match="epoch_1: the optimizer's state is of another model .it has '0.weight'"):
        restore_optimizer(optimizer, large, tensors, rate, "epoch_1")


def renamed(tensors, old, new):
    return {key.replace(old, new): array for key, array in tensors.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: renamed(state, "velocity", "speed"), "not that of Momentum .it has 'speed'"),
        (lambda state: {**state, "bias/velocity_0": np.zeros([3], "float32")}, r"bias/velocity_0 is float32 \[3\]"),
        (lambda state: {**state, "bias/velocity_0": np.zeros([2], "int32")}, r"bias/velocity_0 is int32 \[2\]"),
        (lambda state: {"bias": np.zeros([2], "float32")}, "of another model .it has ''"),
    ],
)
def test_a_state_that_is_not_the_optimizer_s_is_refused(change, message):
    model = paddle.nn.Linear(3, 2)
    optimizer, rate = trained(model)
    tensors = change(optimizer_tensors(optimizer, model))
    with pytest.raises(StorageError, match=message):
        restore_optimizer(optimizer, model, tensors, rate, "epoch_1")


def test_a_state_of_which_something_is_missing_is_refused():
    model = paddle.nn.Linear(3, 2)
    optimizer = paddle.optimizer.Adam(Constant(10, 10, 0.1), parameters=model.parameters())
    model(paddle.ones([2, 3])).sum().backward()
    optimizer.step()
    tensors = optimizer_tensors(optimizer, model)
    del tensors["weight/moment2_0"]
    with pytest.raises(StorageError, match="is not whole: something of 'weight' is missing"):
        restore_optimizer(optimizer, model, tensors, Constant(10, 10, 0.1), "epoch_1")
