# SPDX-License-Identifier: Apache-2.0
"""An export with ONNX: the graph that other programs read answers as the trained model, or nothing is published."""

import sys

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls.arch.densenet import DenseNet
from ppcls.data.transforms.tensor import NormalizeImage, ToCHWImage
from ppcls.deploy import export, to_onnx
from ppcls.deploy.bundle import load_bundle
from ppcls.deploy.export import Wanted, export_model
from ppcls.deploy.runtime import Predictor
from ppcls.deploy.to_onnx import require_onnx, shorten_doubles
from ppcls.utils.errors import ConfigError, ParityError

onnx = pytest.importorskip("onnx")
pytest.importorskip("paddle2onnx")
pytest.importorskip("onnxruntime")

SHAPE = (3, 20, 20)
DESCRIPTION = {
    "Global": {"model_name": "net"},
    "PreProcess": {
        "transform_ops": [{"NormalizeImage": {"mean": [0, 0, 0], "std": [1, 1, 1], "order": ""}}, {"ToCHWImage": None}]
    },
    "PostProcess": {"Topk": {"topk": 1}},
}


@pytest.fixture
def exported(tmp_path):
    """Export with ONNX, proven on decoded images, as a data set in memory has them."""

    def run(model, softmax=True, allow_mismatch=()):
        rng = np.random.RandomState(1)
        images = [rng.randint(0, 256, [20, 20, 3], np.uint8) for _ in range(3)]
        transforms = [NormalizeImage(mean=[0, 0, 0], std=[1, 1, 1], order=""), ToCHWImage()]
        wanted = Wanted(SHAPE, softmax, onnx=True, allow_mismatch=allow_mismatch)
        export_model(model, tmp_path / "bundle", wanted, transforms, DESCRIPTION, images)
        return tmp_path / "bundle"

    return run


def convolutions(*layers):
    paddle.seed(4)
    return nn.Sequential(nn.Conv2D(3, 8, 3), *layers, nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Linear(8, 4))


def noise(batch_size, scale=1.0):
    return (scale * np.random.RandomState(2).standard_normal([batch_size, *SHAPE])).astype("float32")


@paddle.no_grad()
def probabilities(model, images):
    model.eval()
    return nn.functional.softmax(model(paddle.to_tensor(images))).numpy()


def test_a_densenet_answers_the_same_in_both_engines_for_any_batch_size(exported):
    paddle.seed(2)
    model = DenseNet((2, 2), stem_channels=8, growth_rate=4, dropout=0.2, class_num=4)
    directory = exported(model)
    for runtime in ("paddle", "paddle_onednn", "onnxruntime"):
        predictor = Predictor(directory, runtime)
        for size in (1, 2, 5):
            np.testing.assert_allclose(predictor(noise(size)), probabilities(model, noise(size)), atol=1e-6)


def test_the_graph_says_its_batch_dimension_and_its_opset_and_holds_all_its_weights(exported):
    directory = exported(convolutions(nn.ReLU()))
    model = onnx.load(directory / "model.onnx", load_external_data=False)
    (given,), (answer,) = model.graph.input, model.graph.output
    dims = [[dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in (given, answer)]
    assert dims == [["batch", 3, 20, 20], ["batch", 4]]
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 17)]
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert {path.name for path in directory.iterdir()} == {
        *("manifest.json", "inference.json", "inference.pdiparams", "inference.yml", "model.onnx")
    }
    parity = load_bundle(directory).about["parity"]
    assert list(parity["engines"]) == ["paddle", "paddle_onednn", "onnxruntime"]
    assert parity["tolerance"] == 1e-5
    for figures in parity["engines"].values():
        assert 0 < figures["largest_share_of_limit"] <= 1


def test_group_norms_keep_their_epsilon_and_upsampling_by_a_factor_is_converted(exported):
    norms = nn.GroupNorm(4, 8, epsilon=1e-3), nn.ReLU(), nn.InstanceNorm2D(8), nn.GroupNorm(2, 8)
    model = convolutions(*norms, nn.ReLU(), nn.Upsample(scale_factor=2))
    # Paddle 3.3.1 cannot run an upsampling by a factor with oneDNN (Paddle#77340).
    with pytest.raises(ParityError, match="^paddle_onednn: the exported graph does not run in a fresh process"):
        exported(model)
    directory = exported(model, allow_mismatch=["paddle_onednn"])
    nodes = onnx.load(directory / "model.onnx").graph.node
    epsilons = [item.f for node in nodes for item in node.attribute if item.name == "epsilon"]
    assert epsilons == pytest.approx([1e-3, 1e-5, 1e-5])  # what the layers were made with; 1e-5 is their default
    # of a small image only the epsilon is left in the variance
    small = noise(2, scale=1e-2)
    np.testing.assert_allclose(Predictor(directory, "onnxruntime")(small), probabilities(model, small), atol=1e-5)


@pytest.mark.parametrize("layer", [nn.LeakyReLU(0.17), nn.Pad2D(1, value=0.6)])
def test_the_number_of_an_operator_is_not_lost(exported, layer):
    model = convolutions(layer)
    directory = exported(model)
    answers = Predictor(directory, "onnxruntime")(noise(2))
    np.testing.assert_allclose(answers, probabilities(model, noise(2)), atol=1e-6)


def test_numbers_are_shortened_except_those_of_constants():
    def operator(name):
        return {"#": f"1.{name}", "A": [{"N": "number", "AT": {"#": "0.a_array", "D": [{"#": "0.a_f64", "D": 0.1}]}}]}

    program = {"regions": [{"ops": [operator("leaky_relu"), operator("full"), operator("nearest_interp")]}]}
    shorten_doubles(program)
    kinds = [item["A"][0]["AT"]["D"][0]["#"] for item in program["regions"][0]["ops"]]
    assert kinds == ["0.a_f32", "0.a_f64", "0.a_f32"]


def test_a_graph_whose_onnx_weights_are_not_the_trained_ones_is_not_published(exported, monkeypatch, tmp_path):
    def with_another_weight(directory):
        to_onnx.write_onnx(directory)
        model = onnx.load(directory / "model.onnx")
        constants = [item.t for node in model.graph.node if node.op_type == "Constant" for item in node.attribute]
        weight = max(constants, key=lambda tensor: len(tensor.raw_data))
        values = np.frombuffer(weight.raw_data, np.float32).copy()
        values[0] += 0.01
        weight.raw_data = values.tobytes()
        onnx.save(model, directory / "model.onnx")

    monkeypatch.setattr(export, "write_onnx", with_another_weight)
    with pytest.raises(
        ParityError, match="^onnxruntime: the exported graph does not answer as the trained model does"
    ) as caught:
        exported(convolutions(nn.ReLU()))
    assert caught.value.exit_code == 7
    assert list(tmp_path.iterdir()) == []


class LogGamma(nn.Linear):
    """Ends in an operator that ONNX has no word for."""

    def forward(self, x):
        return paddle.lgamma(super().forward(x).abs() + 1)


def test_a_graph_that_onnx_has_no_words_for_is_said_in_one_line_and_not_published(exported, tmp_path):
    with pytest.raises(ParityError, match=r"^the graph cannot be converted to ONNX \(.*\); nothing was pub") as caught:
        exported(nn.Sequential(nn.Flatten(), LogGamma(1200, 4)))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["paddle2onnx", "onnx", "onnxruntime"])
def test_a_package_that_is_not_installed_is_said_before_anything_is_done(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf'^Global.export_for: {name} not installed; pip install "ppcls\[onnx\]"'):
        require_onnx()


def test_a_runtime_that_is_not_installed_is_said_with_its_command(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r'^Global.runtime: onnxruntime is not installed; pip install "ppcls\[onnx'):
        Predictor(tmp_path, "onnxruntime")
