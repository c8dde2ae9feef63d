# SPDX-License-Identifier: Apache-2.0
import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls.engine.finite import all_finite, names_not_finite
from ppcls.engine.first_bad_layer import bad_rows, first_bad_layer
from ppcls.engine.statistics import Statistics

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_one_value_among_many_is_found_in_every_type(dtype, value):
    spoiled = np.ones([3, 4])
    spoiled[2, 1] = value
    tensors = [paddle.ones([5]), paddle.to_tensor(spoiled).astype(dtype), paddle.arange(3)]
    assert not all_finite(tensors)
    assert not all_finite(iter(tensors))
    assert names_not_finite(dict(zip("abc", tensors), d=None)) == ["b"]


def test_large_values_whose_sum_overflows_are_finite():
    tensors = [paddle.full([4], 3e38), paddle.full([9], -6e4, "float16"), paddle.full([2], 1e300, "float64")]
    assert all_finite(tensors)
    assert all_finite(iter(tensors))
    assert names_not_finite(dict(zip("abc", tensors))) == []


def test_infinities_that_cancel_each_other_are_found():
    assert not all_finite([paddle.to_tensor([INF, -INF])])
    assert not all_finite([paddle.to_tensor([INF]), paddle.to_tensor([-INF])])


def test_nothing_is_finite():
    assert all_finite([])
    assert all_finite([paddle.arange(3)])


@pytest.fixture
def net():
    paddle.seed(0)
    return nn.Sequential(
        nn.Conv2D(3, 4, 3), nn.BatchNorm2D(4), nn.ReLU(), nn.MaxPool2D(2), nn.Flatten(), nn.Linear(4, 2)
    )


def test_statistics_are_put_back_and_weights_are_not_touched(net):
    net.register_buffer("count", paddle.to_tensor([3, 4]))
    net.register_buffer("square", paddle.ones([2, 2]))
    statistics = Statistics(net)
    before = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
    kept = statistics.copy()
    net(paddle.randn([4, 3, 4, 4]) + 5)
    net.count = paddle.to_tensor([5, 6])  # another tensor in its place
    net.square.set_value(paddle.zeros([2, 2]))
    net[5].weight.set_value(paddle.zeros([4, 2]))
    changed = {name for name, tensor in net.state_dict().items() if not np.array_equal(tensor.numpy(), before[name])}
    assert changed == {"1._mean", "1._variance", "count", "square", "5.weight"}
    statistics.restore(kept)
    changed = {name for name, tensor in net.state_dict().items() if not np.array_equal(tensor.numpy(), before[name])}
    assert changed == {"5.weight"}


def test_a_statistic_that_is_not_finite_is_named(net):
    statistics = Statistics(net)
    assert statistics.are_finite()
    net[1]._variance[2] = paddle.to_tensor(NAN)
    assert not statistics.are_finite()
    assert statistics.names_not_finite() == ["1._variance"]


def test_the_first_layer_that_is_not_finite_is_named_with_its_images_though_relu_hides_it(net):
    images = paddle.randn([4, 3, 4, 4])
    images[2, 0, 1, 1] = paddle.to_tensor(NAN)
    with first_bad_layer(net) as found:
        net(images).sum().backward()
    assert (found.forward, found.images) == ("0", [2])


def test_images_of_a_later_piece_have_their_numbers_in_the_batch(net):
    images = paddle.randn([5, 3, 4, 4])
    images[4, 0, 1, 1] = paddle.to_tensor(INF)
    with first_bad_layer(net) as found:
        net(images[:2])
        net(images[2:])
    assert (found.forward, found.images) == ("0", [4])


def test_the_first_gradient_on_the_way_back_is_named(net):
    class Root(nn.Layer):
        def forward(self, x):
            return paddle.sqrt(x * 0) + x  # its slope at 0 is infinite

    net = nn.Sequential(nn.Linear(3, 3), Root(), nn.Linear(3, 2))
    with first_bad_layer(net) as found:
        net(paddle.randn([2, 3])).sum().backward()
    assert (found.forward, found.backward) == ("", "0")


def test_a_healthy_net_has_no_bad_layer_and_keeps_no_hooks(net):
    with first_bad_layer(net) as found:
        net(paddle.randn([2, 3, 4, 4])).sum().backward()
    assert (found.forward, found.backward, found.images) == ("", "", [])
    assert not any(layer._forward_post_hooks or layer._forward_pre_hooks for layer in net.sublayers(include_self=True))


def test_rows_are_images_only_where_there_are_as_many():
    tensor = paddle.to_tensor([[0.0, NAN], [1.0, 2.0], [INF, NAN]])
    assert bad_rows(tensor, 3) == [0, 2]
    assert bad_rows(tensor, 4) == []
    assert bad_rows(paddle.to_tensor(NAN), 1) == []
