# SPDX-License-Identifier: Apache-2.0
import itertools
import json
import math

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

from ppcls.arch import efficientnet_lite
from ppcls.arch.efficientnet_lite import ConvNorm, EfficientNetLite, InvertedResidual
from ppcls.config.registry import ARCHS
from ppcls.utils.flops import count_macs

# The table of the authors' README (tensorflow/tpu, models/official/efficientnet/lite): size of the images, millions of
# parameters, millions of multiply-adds, which there count the normalizations as well.
PUBLISHED = {
    "EfficientNetLite0": (224, 4.7, 407),
    "EfficientNetLite1": (240, 5.4, 631),
    "EfficientNetLite2": (260, 6.1, 899),
    "EfficientNetLite3": (280, 8.2, 1440),
    "EfficientNetLite4": (300, 13.0, 2640),
}


@pytest.fixture(scope="module")
def models():
    built = {}
    yield lambda name: built.setdefault(name, ARCHS[name]())
    built.clear()


def num_parameters(model):
    return sum(int(p.size) for p in model.parameters() if p.trainable)


@pytest.mark.parametrize("name", PUBLISHED)
def test_size_and_computation_are_the_published_ones(models, name):
    image_size, millions, multiply_adds = PUBLISHED[name]
    assert round(num_parameters(models(name)) / 1e6, 1) == millions
    assert 0.94 * multiply_adds < count_macs(models(name), (3, image_size, image_size)) / 1e6 < multiply_adds


def test_lite0_has_as_many_parameters_as_its_published_weights(models):
    assert num_parameters(models("EfficientNetLite0")) == 4_652_008


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_the_middle_is_as_wide_and_deep_as_that_of_the_efficientnet_of_the_same_number(models, reference, size):
    shapes = json.loads((reference / "arch" / f"EfficientNetB{size}.json").read_text())["params"]
    theirs = [shape[0] for name, shape, _ in shapes if name.endswith("_pcn._conv._conv._conv.weight")]
    kernels = [shape[-1] for name, shape, _ in shapes if name.endswith("_dcn._conv._conv._conv.weight")]
    blocks = models(f"EfficientNetLite{size}").blocks
    ours = [block.project.conv.weight.shape[0] for block in blocks]
    # All the same but for the number of blocks of the first and the last stage, which is 1 here.
    first, last = theirs.count(theirs[0]), theirs.count(theirs[-1])
    assert ours == theirs[first - 1 : len(theirs) - last + 1]
    assert [block.depthwise.conv.weight.shape[-1] for block in blocks] == kernels[first - 1 : len(kernels) - last + 1]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_first_and_last_layers_are_the_same_in_all_sizes(models, name):
    model = models(name)
    assert model.stem.conv.weight.shape == [32, 3, 3, 3]
    assert model.top.conv.weight.shape[0] == 1280
    assert model.classifier.weight.shape == [1280, 1000]


@pytest.mark.parametrize(
    ("channels", "width", "expected"), [(24, 1.4, 32), (16, 1.4, 24), (112, 1.4, 160), (8, 0.1, 8), (8, 1.45, 16)]
)
def test_channels_are_multiples_of_eight_and_not_much_smaller_than_wanted(channels, width, expected):
    # 33.6 is nearest to 32; 22.4 to 24; 156.8 to 160; there are never fewer than 8; 8 is 31 % smaller than 11.6.
    assert efficientnet_lite.scaled(channels, width) == expected


def test_resolution_is_halved_five_times(models):
    model = models("EfficientNetLite0")
    model.eval()
    with paddle.no_grad():
        x = model.stem(paddle.zeros([1, 3, 224, 224]))
        sides = [x.shape[-1]]
        for block in model.blocks:
            x = block(x)
            sides.append(x.shape[-1])
    # Table 1 of the paper, but for stage 1, which it lists at 224 by its input.
    assert [side for side, _ in itertools.groupby(sides)] == [112, 56, 28, 14, 7]


@pytest.mark.parametrize(("kernel_size", "stride"), [(1, 1), (3, 1), (3, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize("side", [5, 6, 7, 8])
def test_padding_is_tensorflows(kernel_size, stride, side):
    # tf.nn.convolution, "SAME": ceil(side / stride) results, and of an odd number of rows the odd one is below.
    layer = ConvNorm(2, 3, kernel_size, stride)
    images = paddle.randn([1, 2, side, side])
    missing = max((math.ceil(side / stride) - 1) * stride + kernel_size - side, 0)
    before, after = missing // 2, missing - missing // 2
    padded = F.pad(images, [before, after, before, after])
    expected = F.conv2d(padded, layer.conv.weight, stride=stride)
    np.testing.assert_allclose(layer.conv(images).numpy(), expected.numpy(), atol=1e-6)


def test_activation_ends_at_six_and_the_narrow_layers_have_none():
    layer = ConvNorm(1, 1, kernel_size=1)
    layer.conv.weight.set_value(np.ones([1, 1, 1, 1], np.float32))
    layer.eval()
    given = layer(paddle.to_tensor([[[[-5.0, 1.0, 100.0]]]])).numpy().ravel()
    # A new batch norm divides by sqrt(1 + 1e-3).
    np.testing.assert_allclose(given, [0, 1 / math.sqrt(1.001), 6], rtol=1e-6)
    layer.relu = False
    assert layer(paddle.full([1, 1, 1, 1], -5.0)).item() < 0


def test_stochastic_depth_grows_with_the_depth(models):
    blocks = models("EfficientNetLite0").blocks
    assert [block.drop_connect for block in blocks] == pytest.approx([0.2 * index / 16 for index in range(16)])


def test_stochastic_depth_leaves_whole_images_out_in_training_only():
    paddle.seed(0)
    block = InvertedResidual(4, 4, kernel_size=3, stride=1, expansion=2, drop_connect=0.25)
    for layer in block.sublayers():
        if isinstance(layer, paddle.nn.BatchNorm2D):
            layer.eval()  # so that an image's result does not hang on the others
    images = paddle.randn([400, 4, 3, 3])
    block.training = False
    residual = (block(images) - images).numpy()
    block.training = True
    given = (block(images) - images).numpy()
    is_left_out = np.isclose(given, 0).all(axis=(1, 2, 3))
    assert 0.15 < is_left_out.mean() < 0.35
    np.testing.assert_allclose(given[~is_left_out], residual[~is_left_out] / 0.75, atol=1e-5)


def test_a_block_that_changes_the_shape_is_never_left_out():
    for block in (InvertedResidual(4, 4, 3, 2, 6, 1.0), InvertedResidual(4, 8, 3, 1, 6, 1.0)):
        assert not block.adds_input
        assert float(block(paddle.randn([2, 4, 8, 8])).abs().sum()) > 0


def test_arguments_reach_the_model():
    model = ARCHS["EfficientNetLite2"](class_num=7, dropout=0.5, drop_connect=0.0)
    assert model.classifier.weight.shape == [1280, 7]
    assert model.dropout.p == 0.5
    assert {block.drop_connect for block in model.blocks} == {0.0}


def test_normalization_is_that_of_the_published_weights(models):
    norms = [layer for layer in models("EfficientNetLite0").sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)]
    assert {(norm._epsilon, norm._momentum) for norm in norms} == {(1e-3, 0.99)}


def test_new_weights_keep_the_scale_of_what_passes():
    paddle.seed(0)
    model = ARCHS["EfficientNetLite0"]()
    assert float(model.top.conv.weight.std()) == pytest.approx((2 / 1280) ** 0.5, rel=0.05)
    assert float(model.blocks[12].depthwise.conv.weight.std()) == pytest.approx((2 / 25) ** 0.5, rel=0.05)
    assert 0.9 / 1000**0.5 < float(model.classifier.weight.abs().max()) <= 1 / 1000**0.5


def test_head_names_the_classifier(models):
    keys = models("EfficientNetLite0").state_dict()
    assert [key for key in keys if key.split(".")[0] in EfficientNetLite.head] == [
        "classifier.weight",
        "classifier.bias",
    ]


def test_there_are_no_published_weights_to_fetch():
    with pytest.raises(ValueError, match="no published weights for EfficientNetLite0"):
        ARCHS["EfficientNetLite0"](pretrained=True)
