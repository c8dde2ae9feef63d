# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import paddle
import pytest

from ppcls.arch import densenet
from ppcls.config.registry import ARCHS

NUM_PARAMETERS = {
    "DenseNet121": 7_978_856,
    "DenseNet161": 28_681_000,
    "DenseNet169": 14_149_480,
    "DenseNet201": 20_013_928,
    "DenseNet264": 33_337_704,
}
SIZES = sorted(NUM_PARAMETERS)
# From the reference vectors: DenseNet121, first image, first 8 logits, by the gain of the fill rule.
DENSENET121_LOGITS = {
    1.0: [-0.2304784, -0.013509378, -0.13246498, -0.112011686, 0.16158941, 0.17196293, 0.11028622, -0.1823664],
    1.5: [0.869127, -0.5769242, -0.7390133, -2.3037684, 4.0229597, -2.7976236, 2.9687324, -1.2606194],
}
DENSENET121_LARGEST_LOGIT = {1.0: 0.5459721684455872, 1.5: 9.745368003845215}
DENSENET121_SHAPES = {
    "conv1_func._conv.weight": [64, 3, 7, 7],
    "db_conv_2.conv2_2.bn_ac_func1._batch_norm._variance": [96],
    "db_conv_5.conv5_16.bn_ac_func2._conv.weight": [32, 128, 3, 3],
    "tr_conv2_blk.conv_ac_func._conv.weight": [128, 256, 1, 1],
    "batch_norm._mean": [1024],
    "out.weight": [1024, 1000],
    "out.bias": [1000],
}


@pytest.fixture(scope="module")
def models():
    """One model of each size, built once; tests overwrite its weights."""
    built = {}
    yield lambda name: built.setdefault(name, ARCHS[name]())
    built.clear()


@paddle.no_grad()
def logits_of_filled(model, images):
    model.eval()
    return model(paddle.to_tensor(images)).numpy()


@pytest.mark.parametrize("name", SIZES)
def test_number_of_trainable_parameters(models, name):
    assert sum(int(p.size) for p in models(name).parameters() if p.trainable) == NUM_PARAMETERS[name]


def test_densenet121_has_the_published_keys(models):
    state = models("DenseNet121").state_dict()
    assert len(state) == 606
    assert {key: list(state[key].shape) for key in DENSENET121_SHAPES} == DENSENET121_SHAPES


@pytest.mark.parametrize("gain", DENSENET121_LOGITS)
def test_densenet121_gives_the_published_logits(models, fill_rule, reference_images, gain):
    logits = logits_of_filled(fill_rule(models("DenseNet121"), gain), reference_images((2, 3, 224, 224)))
    tolerance = 1e-4 * DENSENET121_LARGEST_LOGIT[gain]
    np.testing.assert_allclose(logits[0, :8], DENSENET121_LOGITS[gain], rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", SIZES)
def test_keys_order_and_shapes_equal_the_reference(models, reference, name):
    expected = json.loads((reference / "arch" / f"{name}.json").read_text())["params"]
    model = models(name)
    trainable = {key for key, parameter in model.named_parameters() if parameter.trainable}
    found = [
        [key, list(tensor.shape), "param" if key in trainable else "buffer"]
        for key, tensor in model.state_dict().items()
    ]
    assert found == expected


@pytest.mark.parametrize("variant", ["v1", "variant_v2"])
@pytest.mark.parametrize("name", SIZES)
def test_logits_equal_the_reference(models, reference, fill_rule, reference_images, name, variant):
    record = json.loads((reference / "arch" / f"{name}.json").read_text())
    expected = record if variant == "v1" else record[variant]
    model = fill_rule(models(name), expected.get("gain", 1.0))
    logits = logits_of_filled(model, reference_images(record["input_shape"]))
    largest = max(abs(expected["logits_stats"]["min"]), abs(expected["logits_stats"]["max"]))
    found = np.concatenate([logits.ravel()[:32], logits[1, :8]])
    difference = np.abs(found - np.concatenate([expected["logits"], expected["row1_first8"]])).max()
    assert difference < 1e-4 * largest
    assert logits.std() == pytest.approx(expected["logits_stats"]["std"], rel=1e-4)


def test_two_models_of_one_size_live_in_one_process():
    first, second = ARCHS["DenseNet121"](class_num=3), ARCHS["DenseNet121"](class_num=3)
    names = [{parameter.name for parameter in model.parameters()} for model in (first, second)]
    assert not names[0] & names[1]
    second.set_state_dict(first.state_dict())
    images = paddle.ones([1, 3, 32, 32])
    first.eval(), second.eval()
    assert (first(images) == second(images)).all()


def test_dropout_scales_at_inference_and_not_in_training():
    paddle.seed(0)
    layer = densenet.DenseLayer(8, growth_rate=4, bn_size=2, dropout=0.25)
    plain = densenet.DenseLayer(8, growth_rate=4, bn_size=2, dropout=0.0)
    plain.set_state_dict(layer.state_dict())
    x = paddle.randn([2, 8, 5, 5])
    layer.eval(), plain.eval()
    np.testing.assert_allclose(layer(x)[:, 8:].numpy(), 0.75 * plain(x)[:, 8:].numpy(), rtol=1e-6)
    layer.train(), plain.train()
    dropped, kept = layer(x)[:, 8:].numpy(), plain(x)[:, 8:].numpy()
    assert 0.1 < (dropped == 0).mean() < 0.4
    np.testing.assert_allclose(dropped[dropped != 0], kept[dropped != 0], rtol=1e-6)


def test_arguments_reach_the_model():
    model = ARCHS["DenseNet121"](class_num=7, bn_size=2, dropout=0.5)
    assert model.out.weight.shape == [1024, 7]
    layer = model.db_conv_2.conv2_1
    assert layer.bn_ac_func1._conv.weight.shape == [64, 64, 1, 1]
    assert layer.dropout.p == 0.5


def test_head_names_the_classifier(models):
    assert [key for key in models("DenseNet121").state_dict() if key.split(".")[0] in densenet.DenseNet.head] == [
        "out.weight",
        "out.bias",
    ]


def test_new_weights_have_the_published_scale():
    paddle.seed(0)
    model = ARCHS["DenseNet121"]()
    assert float(model.conv1_func._conv.weight.std()) == pytest.approx((2 / (7 * 7 * 3)) ** 0.5, rel=0.05)
    assert 0.9 / 32 < float(model.out.weight.abs().max()) <= 1 / 32
    assert float(model.out.bias.abs().max()) == 0


def test_densenet100_counted_by_hand():
    # arXiv:1608.06993, section 4.2 and table 2: DenseNet-BC, k = 12, 24 channels first, three blocks of 16 layers.
    growth, channels, count = 12, 24, 3 * 24 * 9
    for block in range(3):
        for _ in range(16):
            bottleneck = 2 * channels + channels * 4 * growth
            count += bottleneck + 2 * 4 * growth + 4 * growth * growth * 9
            channels += growth
        if block < 2:
            count += 2 * channels + channels * (channels // 2)
            channels //= 2
    count += 2 * channels + channels * 10 + 10
    model = ARCHS["DenseNet100"]()
    assert sum(int(p.size) for p in model.parameters() if p.trainable) == count
    assert 0.76e6 < count < 0.78e6
    convolutions = [layer for layer in model.sublayers() if isinstance(layer, paddle.nn.Conv2D)]
    assert len(convolutions) + 1 == 100  # and one fully connected layer


def test_densenet100_keeps_the_resolution_until_its_transitions():
    model = ARCHS["DenseNet100"]()
    images = paddle.zeros([1, 3, 32, 32])
    x = model.pool2d_max(model.conv1_func(images))
    shapes = [x.shape]
    for name in model._stages:
        x = getattr(model, name)(x)
        shapes.append(x.shape)
    expected = [[24, 32], [216, 32], [108, 16], [300, 16], [150, 8], [342, 8]]
    assert [[shape[1], shape[2]] for shape in shapes] == expected


def test_densenet100_has_no_published_weights():
    with pytest.raises(ValueError, match="no published weights for DenseNet100"):
        ARCHS["DenseNet100"](pretrained=True)
