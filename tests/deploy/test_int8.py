# SPDX-License-Identifier: Apache-2.0
"""A graph in whole numbers: near the one in float32, with weights of 8 bits, and refused when it costs accuracy."""

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls.deploy import int8, runtime
from ppcls.deploy.bundle import INT8_GRAPH, ONNX_GRAPH
from ppcls.deploy.export import Deployed
from ppcls.deploy.int8 import judge, require_int8, write_int8
from ppcls.deploy.latency import latencies
from ppcls.deploy.runtime import Predictor
from ppcls.deploy.to_onnx import write_onnx
from ppcls.utils.errors import ConfigError, ParityError

onnx = pytest.importorskip("onnx")
for package in ("paddle2onnx", "onnxruntime", "ml_dtypes"):
    pytest.importorskip(package)

SHAPE = (3, 24, 24)
NUM_CLASSES = 6
WIDTHS = (8, 8, 16, 16)


def images(number):
    return np.random.RandomState(3).standard_normal([number, *SHAPE]).astype("float32")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A net with channels of very different size in both forms."""
    paddle.seed(5)
    layers, channels = [], SHAPE[0]
    for number, width in enumerate(WIDTHS):
        layers += [nn.Conv2D(channels, width, 3, padding=1), nn.BatchNorm2D(width)]
        layers.append(nn.ReLU6() if number % 2 else nn.LeakyReLU(0.1))
        channels = width
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Linear(channels, NUM_CLASSES))
    for layer in net:
        if isinstance(layer, nn.Conv2D):
            sizes = np.logspace(-2, 1, layer.weight.shape[0]).astype("float32")
            layer.weight.set_value(layer.weight * paddle.to_tensor(sizes).reshape([-1, 1, 1, 1]))
        elif isinstance(layer, nn.BatchNorm2D):
            layer._variance.set_value(np.logspace(-4, 2, layer._variance.shape[0]).astype("float32"))
    net.eval()
    folder = tmp_path_factory.mktemp("graph")
    spec = paddle.static.InputSpec([None, *SHAPE], "float32", name="x")
    graph = paddle.jit.to_static(Deployed(net, add_softmax=True), input_spec=[spec], full_graph=True)
    paddle.jit.save(graph, str(folder / "inference"))
    write_onnx(folder)
    before = {path.name for path in folder.iterdir()}
    write_int8(folder, list(images(16)))
    assert {path.name for path in folder.iterdir()} == before | {INT8_GRAPH}
    return folder


@pytest.fixture(scope="module")
def graph(directory):
    return onnx.load(directory / INT8_GRAPH).graph


def test_answers_are_near_those_in_float32(directory):
    wanted, given = (np.log(Predictor(directory, name)(images(16))) for name in ("onnxruntime", "int8"))
    # A tensor of 8 bits is rounded by half of 1/255 of its range; there are ten tensors on the way.
    assert np.abs(given - wanted).max() < 10 * 0.5 / 255 * np.ptp(wanted)
    assert not np.array_equal(given, wanted)


def test_an_image_is_answered_alike_in_batches_of_any_size(directory):
    predictor = Predictor(directory, "int8")
    whole = predictor(images(5))
    for number in range(5):
        np.testing.assert_allclose(predictor(images(5)[number : number + 1])[0], whole[number], rtol=1e-5)


def test_probabilities_are_not_rounded_to_whole_numbers(directory):
    probabilities = Predictor(directory, "int8")(images(16))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert len(np.unique(probabilities)) == probabilities.size


def test_weights_have_8_bits_and_a_scale_for_each_channel_but_those_of_the_first_layers(graph):
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    producers = {node.output[0]: node for node in graph.node}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == len(WIDTHS)
    for node, width in zip(convolutions[: int8.NUM_FLOAT], WIDTHS):
        assert arrays[node.input[1]].dtype == np.float32 and len(arrays[node.input[1]]) == width
    for node, width in list(zip(convolutions, WIDTHS))[int8.NUM_FLOAT :]:
        weight, scale, _ = producers[node.input[1]].input
        assert arrays[weight].dtype == np.int8
        assert arrays[scale].shape == (width,) and len(set(arrays[scale])) == width


def test_batch_norms_are_folded_and_softmax_is_left_alone(graph):
    kinds = {node.op_type for node in graph.node}
    assert "BatchNormalization" not in kinds
    (softmax,) = (node for node in graph.node if node.op_type == "Softmax")
    assert softmax.output[0] == graph.output[0].name


@pytest.fixture
def cpu(monkeypatch, tmp_path):
    """Pretend that this is a machine with such a CPU."""

    def pretend(machine, flags):
        monkeypatch.setattr(runtime.platform, "machine", lambda: machine)
        monkeypatch.setattr(runtime, "CPU_INFO", tmp_path / "cpuinfo")
        if flags is not None:
            (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu sse {flags} sha_ni\n")

    return pretend


@pytest.mark.parametrize(
    ("machine", "flags", "is_safe"),
    [
        ("x86_64", "avx2 avx512f avx512_vnni", True),
        ("x86_64", "avx2 avx_vnni", True),
        ("x86_64", "avx2 avx512f", False),
        ("AMD64", None, False),
        ("aarch64", None, True),
    ],
)
def test_bytes_are_multiplied_the_slow_way_where_their_sums_would_overflow(directory, cpu, machine, flags, is_safe):
    here = Predictor(directory, "int8")(images(4))
    cpu(machine, flags)
    predictor = Predictor(directory, "int8")
    options = predictor.engine.session.get_session_options()
    if is_safe:
        with pytest.raises(RuntimeError):  # there is no such entry
            options.get_session_config_entry("session.x64quantprecision")
    else:
        assert options.get_session_config_entry("session.x64quantprecision") == "1"
        np.testing.assert_allclose(predictor(images(4)), here, rtol=1e-5)


def test_latencies_are_taken_of_each_engine(directory):
    predictors = {name: Predictor(directory, name) for name in ("onnxruntime", "int8")}
    found = latencies(predictors, images(1)[0])
    assert list(found) == list(predictors) and min(found.values()) > 0


def test_a_graph_that_cannot_be_quantized_is_refused_in_one_line(tmp_path):
    (tmp_path / ONNX_GRAPH).write_bytes(b"no graph")
    with pytest.raises(ParityError, match=r"^int8: the graph cannot be quantized \(.*\); nothing was published$"):
        write_int8(tmp_path, list(images(1)))
    assert not (tmp_path / INT8_GRAPH).exists() and not (tmp_path / "images.npz").exists()


def figures(right, number):
    return {"top1": right / number, "top1_correct": right, "num_samples": number}


@pytest.mark.parametrize(
    ("before", "after", "number", "passes"),
    [(900, 895, 1000, True), (900, 894, 1000, False), (45, 45, 50, True), (45, 44, 50, False), (45, 50, 50, True)],
)
def test_half_a_point_may_be_lost_and_no_more(before, after, number, passes):
    if passes:
        judge(figures(before, number), figures(after, number), allow_loss=False)
        return
    with pytest.raises(ParityError, match=f"{after} of {number} images .* and {before} in float32") as refused:
        judge(figures(before, number), figures(after, number), allow_loss=False)
    assert "--allow-int8-loss" in str(refused.value) and "\n" not in str(refused.value)
    judge(figures(before, number), figures(after, number), allow_loss=True)


def test_missing_packages_are_named(monkeypatch):
    require_int8()
    monkeypatch.setattr(int8, "find_spec", lambda name: None if name == "ml_dtypes" else name)
    with pytest.raises(ConfigError, match=r"ml_dtypes not installed; pip install \"ppcls\[onnx\]\""):
        require_int8()


@pytest.mark.parametrize(
    ("kinds", "kept"),
    [
        (["Add", "Conv", "Relu", "Conv", "Clip", "Conv", "Relu"], 5),
        (["Conv", "Relu", "MatMul"], 2),
        (["MatMul", "Relu"], 0),
    ],
)
def test_all_up_to_the_second_convolution_and_its_activation_stays_in_float32(tmp_path, kinds, kept):
    # A chain of operators; each takes what the one before gives.
    nodes = [
        onnx.helper.make_node(kind, [f"t{number}"], [f"t{number + 1}"], f"{kind} {number}")
        for number, kind in enumerate(kinds)
    ]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "chain", [], [])), tmp_path / "chain.onnx")
    assert sorted(set(int8._first_layers(tmp_path / "chain.onnx"))) == sorted(node.name for node in nodes[:kept])
