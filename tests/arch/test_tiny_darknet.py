# SPDX-License-Identifier: Apache-2.0
import numpy as np
import paddle
import pytest

from ppcls.arch.tiny_darknet import ConvNormLeaky, TinyDarkNet


def test_number_of_parameters_counted_by_hand():
    convolutions = 9 * (
        3 * 16 + 16 * 32 + 16 * 128 + 16 * 128 + 32 * 256 + 32 * 256 + 64 * 512 + 64 * 512  # 3x3
    ) + (32 * 16 + 128 * 16 + 128 * 32 + 256 * 32 + 256 * 64 + 512 * 64 + 512 * 128)  # 1x1
    norms = 2 * (16 + 32 + 16 + 128 + 16 + 128 + 32 + 256 + 32 + 256 + 64 + 512 + 64 + 512 + 128)
    classifier = 128 * 1000 + 1000
    model = TinyDarkNet()
    assert sum(int(p.size) for p in model.parameters() if p.trainable) == convolutions + norms + classifier
    assert 1.03e6 < convolutions + norms + classifier < 1.05e6


def test_sixteen_convolutions_and_no_fully_connected_layer():
    layers = TinyDarkNet().sublayers()
    assert sum(isinstance(layer, paddle.nn.Conv2D) for layer in layers) == 16
    assert sum(isinstance(layer, paddle.nn.MaxPool2D) for layer in layers) == 4
    assert not any(isinstance(layer, paddle.nn.Linear) for layer in layers)


def test_four_pools_divide_the_resolution_by_sixteen():
    assert TinyDarkNet().features(paddle.zeros([1, 3, 64, 96])).shape == [1, 128, 4, 6]


def test_block_against_its_formula():
    block = ConvNormLeaky(2, 3, kernel_size=1)
    block.eval()
    x = np.random.RandomState(0).standard_normal((1, 2, 4, 4)).astype("float32")
    y = np.einsum("oi,nihw->nohw", block.conv.weight.numpy()[:, :, 0, 0], x) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(block(paddle.to_tensor(x)).numpy(), np.where(y > 0, y, 0.1 * y), rtol=1e-5, atol=1e-6)


def test_logits_are_the_mean_over_positions_of_a_linear_classifier():
    model = TinyDarkNet(class_num=5)
    model.eval()
    images = paddle.randn([2, 3, 32, 32])
    features = model.features(images).numpy().mean(axis=(2, 3))
    expected = features @ model.classifier.weight.numpy()[:, :, 0, 0].T + model.classifier.bias.numpy()
    np.testing.assert_allclose(model(images).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_there_are_no_published_weights():
    with pytest.raises(ValueError, match="no published weights for TinyDarkNet; give Arch.pretrained a path"):
        TinyDarkNet(pretrained=True)
