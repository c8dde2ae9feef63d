# SPDX-License-Identifier: Apache-2.0
"""Weights with PyTorch's names and layouts: each array lands where it belongs, or nothing is taken."""

import re

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls.arch.convert import load_foreign
from ppcls.config.registry import ARCHS
from ppcls.utils.errors import StorageError


class Net(nn.Layer):
    """A layer of each kind, with a square one whose shape does not tell which way round it is."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2D(3, 4, 3)
        self.norm = nn.BatchNorm2D(4)
        self.square = nn.Linear(4, 4)
        self.out = nn.Linear(4, 2)

    def pytorch_names(self):
        return ({"features.0": "conv", "features.1": "norm", "fc1": "square", "fc2": "out"},)


FOREIGN_SHAPES = {
    "features.0.weight": [4, 3, 3, 3],
    "features.0.bias": [4],
    "features.1.weight": [4],
    "features.1.bias": [4],
    "features.1.running_mean": [4],
    "features.1.running_var": [4],
    "features.1.num_batches_tracked": [],
    "fc1.weight": [4, 4],
    "fc1.bias": [4],
    "fc2.weight": [2, 4],
    "fc2.bias": [2],
}


@pytest.fixture
def foreign():
    """What PyTorch would store for `Net`."""
    rng = np.random.RandomState(0)
    weights = {name: rng.standard_normal(shape).astype("float32") for name, shape in FOREIGN_SHAPES.items()}
    return {**weights, "features.1.num_batches_tracked": np.array(7, np.int64)}


def assert_is_the_foreign_net(model, foreign):
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    np.testing.assert_array_equal(state["conv.weight"], foreign["features.0.weight"])
    np.testing.assert_array_equal(state["norm.weight"], foreign["features.1.weight"])
    np.testing.assert_array_equal(state["norm._mean"], foreign["features.1.running_mean"])
    np.testing.assert_array_equal(state["norm._variance"], foreign["features.1.running_var"])
    x = np.random.RandomState(1).standard_normal([5, 4]).astype("float32")
    # torch.nn.functional.linear: x W^T + b.
    expected = x @ foreign["fc1.weight"].T + foreign["fc1.bias"]
    np.testing.assert_allclose(model.square(paddle.to_tensor(x)).numpy(), expected, rtol=1e-5, atol=1e-6)
    expected = x @ foreign["fc2.weight"].T + foreign["fc2.bias"]
    np.testing.assert_allclose(model.out(paddle.to_tensor(x)).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_names_and_layouts_of_pytorch_become_ours(foreign):
    model = Net()
    report = load_foreign(model, foreign, "net.safetensors")
    assert report.num_matched == len(model.state_dict()) == 10
    assert_is_the_foreign_net(model, foreign)


def test_a_net_that_bears_the_same_names_in_pytorch_needs_no_table(foreign):
    (names,) = Net().pytorch_names()
    same = {f"{names[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": array for name, array in foreign.items()}
    model = Net()
    load_foreign(model, same, "net.safetensors")
    assert_is_the_foreign_net(model, foreign)


def test_the_order_of_the_file_does_not_matter(foreign):
    model = Net()
    load_foreign(model, dict(sorted(foreign.items(), reverse=True)), "net.safetensors")
    assert_is_the_foreign_net(model, foreign)


def test_weights_of_paddle_pass_as_they_are():
    model, other = Net(), Net()
    load_foreign(other, {name: tensor.numpy() for name, tensor in model.state_dict().items()}, "net.pdparams")
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name].numpy(), tensor.numpy())


def test_half_precision_is_widened(foreign):
    halves = {name: array.astype("float16") if array.ndim else array for name, array in foreign.items()}
    model = Net()
    load_foreign(model, halves, "net.safetensors")
    assert str(model.conv.weight.dtype) == "paddle.float32"
    np.testing.assert_array_equal(model.conv.weight.numpy(), halves["features.0.weight"].astype("float32"))


def without(name):
    def change(weights):
        del weights[name]

    return change


def with_array(name, array):
    def change(weights):
        weights[name] = array

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("features.1.running_var"), r"1 missing \(norm\._variance\)"),
        (without("fc2.bias"), r"1 missing \(out\.bias\)"),
        (with_array("fc3.weight", np.zeros([2, 2], "float32")), r"1 unexpected \(fc3\.weight\)"),
        (with_array("fc2.weight", np.zeros([4, 2], "float32")), r"out\.weight \[2, 4\] in the file, \[4, 2\] in the"),
        (with_array("fc2.bias", np.array([0, np.nan], "float32")), "fc2.bias has values that are not finite"),
        (with_array("out.bias", np.zeros(2, "float32")), "bias and another name both mean one array"),
        (with_array("fc2.bias", np.array([1, 2], "complex64")), "out.bias is complex64 in the file"),
        (lambda weights: weights.clear(), "0 matched"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line_and_nothing_is_changed(foreign, change, message):
    change(foreign)
    model = Net()
    before = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    with pytest.raises(StorageError, match=message) as refused:
        load_foreign(model, foreign, "net.safetensors")
    assert str(refused.value).startswith("net.safetensors: ") and "\n" not in str(refused.value)
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), before[name])


def pytorch_file(model, naming):
    """What PyTorch would store for a model whose layers bear the names on the left."""
    ours = {layer: theirs for theirs, layer in naming.items()}
    linear = {name for name, layer in model.named_sublayers() if isinstance(layer, nn.Linear)}
    leaves = {"_mean": "running_mean", "_variance": "running_var"}
    stored = {}
    for name, tensor in model.state_dict().items():
        layer, _, leaf = name.rpartition(".")
        array = tensor.numpy()
        stored[f"{ours[layer]}.{leaves.get(leaf, leaf)}"] = array.T if layer in linear and leaf == "weight" else array
    return stored


@pytest.mark.parametrize("name", ["EfficientNetLite0", "EfficientNetLite1", "DenseNet121", "DenseNet264"])
def test_every_naming_of_an_architecture_names_all_its_layers_once(name):
    model = ARCHS[name]()
    layers = {key.rpartition(".")[0] for key in model.state_dict()}
    for naming in model.pytorch_names():
        assert sorted(naming.values()) == sorted(layers)


# As torchvision.models.densenet121 and timm's tf_efficientnet_lite0 list them.
PUBLISHED_SHAPES = {
    "DenseNet121": {
        "features.conv0.weight": [64, 3, 7, 7],
        "features.norm0.running_mean": [64],
        "features.denseblock1.denselayer1.norm1.weight": [64],
        "features.denseblock1.denselayer1.conv1.weight": [128, 64, 1, 1],
        "features.denseblock1.denselayer6.norm1.weight": [224],
        "features.denseblock4.denselayer16.conv2.weight": [32, 128, 3, 3],
        "features.transition1.norm.running_var": [256],
        "features.transition3.conv.weight": [512, 1024, 1, 1],
        "features.norm5.bias": [1024],
        "classifier.weight": [1000, 1024],
    },
    "EfficientNetLite0": {
        "conv_stem.weight": [32, 3, 3, 3],
        "bn1.running_mean": [32],
        "blocks.0.0.conv_dw.weight": [32, 1, 3, 3],
        "blocks.0.0.conv_pw.weight": [16, 32, 1, 1],
        "blocks.0.0.bn2.weight": [16],
        "blocks.1.0.conv_pw.weight": [96, 16, 1, 1],
        "blocks.1.0.conv_pwl.weight": [24, 96, 1, 1],
        "blocks.5.3.conv_dw.weight": [1152, 1, 5, 5],
        "blocks.6.0.bn3.running_var": [320],
        "conv_head.weight": [1280, 320, 1, 1],
        "bn2.bias": [1280],
        "classifier.weight": [1000, 1280],
    },
}


@pytest.mark.parametrize("name", PUBLISHED_SHAPES)
def test_a_file_with_published_names_is_taken(name, fill_rule):
    paddle.seed(0)
    model, other = fill_rule(ARCHS[name]()), ARCHS[name]()
    stored = pytorch_file(model, model.pytorch_names()[-1])
    found = {key: list(stored[key].shape) for key in PUBLISHED_SHAPES[name]}
    assert found == PUBLISHED_SHAPES[name]
    load_foreign(other, stored, "file")
    images = paddle.to_tensor(np.random.RandomState(0).standard_normal([1, 3, 64, 64]).astype("float32"))
    model.eval(), other.eval()
    with paddle.no_grad():
        np.testing.assert_array_equal(model(images).numpy(), other(images).numpy())


def test_a_net_for_small_images_has_no_published_form():
    model = ARCHS["DenseNet100"]()
    assert model.pytorch_names() == ()
    with pytest.raises(StorageError, match=re.escape("0 matched")):
        load_foreign(model, {"features.conv0.weight": np.zeros([24, 3, 3, 3], "float32")}, "file")
