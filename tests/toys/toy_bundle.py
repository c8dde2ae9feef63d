# SPDX-License-Identifier: Apache-2.0
"""A bundle made by hand, whose answers follow from a formula: the colour of an image that is strongest is its class."""

import json

import cv2
import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

from ppcls.deploy.bundle import KIND
from ppcls.utils.storage import published

COLORS = ("red", "green", "blue")
SIZE = 32
GAIN = 10.0


def write_bundle(directory, labels=COLORS, work=0, size=SIZE, gain=GAIN, num_classes=3, resize=None):
    """Logits are ten times the mean of each channel (0..1); ``work`` convolutions make it slow, and change nothing."""
    weight = numpy_helper.from_array(np.eye(3, num_classes, dtype=np.float32) * np.float32(gain), "weight")
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["means"]),
        helper.make_node("MatMul", ["means", "weight"], ["logits" if not work else "from_colors"]),
    ]
    tensors = [weight]
    if work:
        rng = np.random.RandomState(0)
        last = "x"
        for number in range(work):
            channels = 3 if number == 0 else 64
            kernel = rng.standard_normal([64, channels, 3, 3]).astype(np.float32) / np.float32(3 * channels**0.5)
            tensors.append(numpy_helper.from_array(kernel, f"kernel{number}"))
            made = f"convolved{number}"
            nodes.append(helper.make_node("Conv", [last, f"kernel{number}"], [made], pads=[1, 1, 1, 1]))
            last = made
        tensors.append(numpy_helper.from_array(np.float32(0), "zero"))
        tensors.append(numpy_helper.from_array(np.array([1, 2, 3]), "axes"))
        nodes += [
            helper.make_node("ReduceMean", [last, "axes"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
            helper.make_node("Unsqueeze", ["nothing", "one"], ["column"]),
            helper.make_node("Add", ["from_colors", "column"], ["logits"]),
        ]
        tensors.append(numpy_helper.from_array(np.array([1]), "one"))
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", num_classes])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    description = {
        "Global": {
            "model_name": "ToyColors",
            "image_shape": [3, size, size],
            "class_num": num_classes,
            "softmax": False,
        },
        "PreProcess": {
            "transform_ops": [
                {"DecodeImage": {"to_rgb": True}},
                {"ResizeImage": {"size": resize or size}},
                {"NormalizeImage": {"scale": "1.0/255.0", "mean": [0, 0, 0], "std": [1, 1, 1], "order": ""}},
                {"ToCHWImage": None},
            ]
        },
        "PostProcess": {"Topk": {"topk": 3, "label_list": list(labels)}},
    }
    about = {
        "format": 1,
        "unfit": [],
        "fastest": ["onnxruntime"],
        "versions": {"ppcls": "0"},
        "parity": {"note": "toy"},
    }
    with published(directory, KIND, about=about) as partial:
        for name in ("inference.json", "inference.pdiparams"):
            (partial / name).write_text(json.dumps({"toy": name}))
        (partial / "model.onnx").write_bytes(model.SerializeToString())
        (partial / "inference.yml").write_text(yaml.safe_dump(description))
    return directory


def picture(color, size=SIZE, level=200, kind=".png"):
    """A file of one colour (0 red, 1 green, 2 blue), over black."""
    image = np.zeros([size, size, 3], np.uint8)
    image[..., 2 - color] = level  # OpenCV writes BGR
    return cv2.imencode(kind, image)[1].tobytes()


def expected_scores(color, level=200):
    """Softmax of the formula, best first."""
    logits = np.zeros(3)
    logits[color] = GAIN * level / 255
    return sorted(np.exp(logits) / np.exp(logits).sum(), reverse=True)
