# SPDX-License-Identifier: Apache-2.0
"""What every registered architecture has to do; a new one is tested from its first day."""

import inspect

import numpy as np
import paddle
import pytest

import ppcls.arch  # noqa: F401
from ppcls.config.registry import ARCHS


@pytest.fixture(scope="module", params=list(ARCHS))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    paddle.seed(0)
    return ARCHS[name](class_num=5)


@pytest.mark.parametrize("size", [(32, 32), (64, 48)])
def test_output_has_one_row_of_logits_per_image(model, size):
    model.eval()
    with paddle.no_grad():
        assert ppcls.arch.logits_of(model(paddle.zeros([2, 3, *size]))).shape == [2, 5]


def test_class_num_is_the_number_of_logits_and_defaults_to_that_of_the_data_set(name, model):
    of_cifar10 = ("DenseNet100",)
    assert inspect.signature(ARCHS[name]).parameters["class_num"].default == (10 if name in of_cifar10 else 1000)
    other = ARCHS[name](class_num=11)
    other.eval()
    with paddle.no_grad():
        assert ppcls.arch.logits_of(other(paddle.zeros([1, 3, 32, 32]))).shape == [1, 11]
    shapes, other_shapes = (
        {key: list(tensor.shape) for key, tensor in each.state_dict().items()} for each in (model, other)
    )
    differing = [key for key in shapes if shapes[key] != other_shapes[key]]
    assert differing and all(key.startswith(tuple(head + "." for head in model.head)) for key in differing)


def test_every_trainable_parameter_has_a_finite_gradient(model):
    model.train()
    images = paddle.to_tensor(np.random.RandomState(0).standard_normal((2, 3, 64, 64)).astype("float32"))
    logits = ppcls.arch.logits_of(model(images))
    paddle.nn.functional.cross_entropy(logits, paddle.to_tensor([1, 3])).backward()
    bad = [
        key
        for key, parameter in model.named_parameters()
        if parameter.trainable and (parameter.grad is None or not bool(parameter.grad.isfinite().all()))
    ]
    model.clear_gradients()
    assert bad == []


def test_state_dict_round_trip(name, model):
    state = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    other = ARCHS[name](class_num=5)
    missing, unexpected = other.set_state_dict(state)
    assert (missing, unexpected) == ([], [])
    images = paddle.ones([1, 3, 32, 32])
    model.eval(), other.eval()
    with paddle.no_grad():
        assert (ppcls.arch.logits_of(model(images)) == ppcls.arch.logits_of(other(images))).all()
