# SPDX-License-Identifier: Apache-2.0
"""An exported graph in whole numbers: ``python -m ppcls.deploy.int8 DIRECTORY IMAGES.npz`` adds ``model_int8.onnx``.

A process of its own, as the quantizer prints, sets up logging, and holds the model several times.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.deploy.bundle import INT8_GRAPH, ONNX_GRAPH
from ppcls.deploy.process import failure_of_module
from ppcls.utils.errors import ConfigError, ParityError

PACKAGES = ("onnx", "onnxruntime", "ml_dtypes")
NUM_IMAGES = 64
"""What the ranges of activations are taken from."""
LARGEST_FALL = 0.005
"""Of the share of images that are answered rightly."""

# Not Softmax, whose 256 steps would be all that is left of the probabilities; not Concat, which gains nothing by it.
OPERATORS = (
    *("Conv", "Gemm", "MatMul", "Add", "Clip", "Relu", "LeakyRelu"),
    *("MaxPool", "AveragePool", "GlobalAveragePool"),
)
ACTIVATIONS = ("Clip", "Relu", "LeakyRelu")
NUM_FLOAT = 2
"""Convolutions at the beginning that stay in float32: with few channels they lose most and gain least."""


def require_int8() -> None:
    """Make sure that the packages for quantization are there, before anything is done.

    Raises:
        ConfigError: one is missing.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(f'Global.export_for: int8: {" and ".join(missing)} not installed; pip install "ppcls[onnx]"')


def write_int8(directory: Path, images: Sequence[np.ndarray]) -> None:
    """Add ``model_int8.onnx`` to ``model.onnx`` in a directory.

    Args:
        directory: where the graph is.
        images: of the graph's input, without a batch axis, from the training set.

    Raises:
        ParityError: the graph cannot be quantized.
    """
    stored = directory / "images.npz"
    np.savez(stored, **{f"image {number}": image for number, image in enumerate(images)})
    try:
        reason = failure_of_module("ppcls.deploy.int8", directory, stored)
    finally:
        stored.unlink()
    if reason:
        raise ParityError(f"int8: the graph cannot be quantized ({reason}); nothing was published")


def judge(before: Mapping[str, float], after: Mapping[str, float], allow_loss: bool) -> None:
    """Refuse whole numbers that cost more than half a point of top-1 accuracy.

    Args:
        before: figures of the graph in float32: ``top1_correct`` of ``num_samples``.
        after: figures of the graph in int8, of the same images.
        allow_loss: let it pass.

    Raises:
        ParityError: the accuracy falls by more than that.
    """
    num_images = before["num_samples"]
    fall = before["top1_correct"] - after["top1_correct"]
    if fall > LARGEST_FALL * num_images and not allow_loss:
        raise ParityError(
            f"int8: {after['top1_correct']} of {num_images} images of the evaluation are right, and "
            f"{before['top1_correct']} in float32: top-1 falls by {100 * fall / num_images:.2f} points, more than "
            f"{100 * LARGEST_FALL:g} (of so many images, one is {100 / num_images:.2g} points); nothing was published. "
            "Leave int8 out, or accept that with --allow-int8-loss"
        )


def main(directory: str, images: str) -> None:
    """Fold what can be folded, take the ranges of all activations from the images, and write whole numbers."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    simplified = Path(directory, "simplified.onnx")
    # Folds batch norms into convolutions, which have to be one operation before their ranges are taken.
    quant_pre_process(str(Path(directory, ONNX_GRAPH)), str(simplified), skip_symbolic_shape=True)
    with np.load(images, allow_pickle=False) as stored:
        quantize_static(
            str(simplified),
            str(Path(directory, INT8_GRAPH)),
            _reader(simplified, [stored[name] for name in stored.files]),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS),
            nodes_to_exclude=_first_layers(simplified),
            per_channel=True,  # a depthwise convolution has channels of very different size
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
        )
    simplified.unlink()


def _first_layers(graph: Path) -> list[str]:
    """The names of the first convolutions, of all before them, and of the activations that follow them."""
    import onnx

    nodes = list(onnx.load(graph).graph.node)
    convolutions = [number for number, node in enumerate(nodes) if node.op_type == "Conv"][:NUM_FLOAT]
    first = nodes[: convolutions[-1] + 1] if convolutions else []
    outputs = {output for node in first for output in node.output}
    follow = [node for node in nodes if node.op_type in ACTIVATIONS and not outputs.isdisjoint(node.input)]
    return [node.name for node in (*first, *follow)]


def _reader(graph: Path, images: Sequence[np.ndarray]) -> Any:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader

    (name,) = (value.name for value in onnx.load(graph, load_external_data=False).graph.input)

    class Images(CalibrationDataReader):
        """The images, one at a time, as the quantizer asks for them."""

        def __init__(self) -> None:
            self.rest = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            """The next image, or None behind the last."""
            image = next(self.rest, None)
            return None if image is None else {name: image[None]}

    return Images()


if __name__ == "__main__":
    main(*sys.argv[1:])
