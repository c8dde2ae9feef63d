# SPDX-License-Identifier: Apache-2.0
"""A trained model as a static graph with its preprocessing, published only when it gives the trained answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import paddle
from paddle import nn

from ppcls.arch.output import logits_of
from ppcls.data.images import transform_image
from ppcls.deploy.bundle import GRAPH, KIND, write_description
from ppcls.deploy.parity import prove
from ppcls.deploy.to_onnx import OPSET, write_onnx
from ppcls.utils.errors import ConfigError, ParityError
from ppcls.utils.storage import published


class Deployed(nn.Layer):
    """The graph that is exported: images [N, C, H, W] to probabilities (or logits) [N, class_num].

    Args:
        model: the trained model.
        add_softmax: end in softmax.
    """

    def __init__(self, model: nn.Layer, add_softmax: bool) -> None:
        super().__init__()
        self.model = model
        self.add_softmax = add_softmax

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Probabilities, or logits without ``add_softmax``."""
        logits = logits_of(self.model(x))
        return nn.functional.softmax(logits, axis=-1) if self.add_softmax else logits


def export_model(
    model: nn.Layer,
    directory: str | os.PathLike,
    image_shape: Sequence[int],
    add_softmax: bool,
    transforms: Sequence[Any],
    description: dict[str, Any],
    images: Sequence[bytes | np.ndarray],
    onnx: bool = False,
) -> dict[str, Any]:
    """Write ``inference.json``, ``inference.pdiparams`` and ``inference.yml``, and prove them before they appear.

    A fresh process reads the images by ``inference.yml``, runs the graph with Paddle Inference (and ONNX
    Runtime), and its logits are held against those of ``model``.

    Args:
        model: in any mode; it is left in evaluation mode.
        directory: what appears, whole, when the answers agree.
        image_shape: channels, height, width.
        add_softmax: whether the graph ends in softmax.
        transforms: the preprocessing, for the trained side of the comparison.
        description: what ``inference.yml`` says: ``Global``, ``PreProcess``, ``PostProcess``.
        images: real images to compare on, each a file's bytes or uint8 [H, W, 3]; without any, noise is
            used, and the description says so.
        onnx: also write ``model.onnx``.

    Returns:
        The parity figures that ``inference.yml`` records.

    Raises:
        ConfigError: the transforms do not end in images of ``image_shape``.
        ParityError: the graph cannot be converted to ONNX, or the answers differ by more than 1e-5 of the
            largest logit; nothing is published.
        StorageError: the directory cannot be written.
    """
    model.eval()
    inputs = _inputs(images, transforms, image_shape)
    for image in inputs:
        if list(image.shape[1:]) != list(image_shape):
            raise ConfigError(
                f"Global.image_shape: {list(image_shape)}, but Infer.transforms end in images of "
                f"{list(image.shape[1:])}; write the shape that they end in"
            )
    logits = np.concatenate([_logits(model, image) for image in inputs])
    if not np.isfinite(logits).all():
        raise ParityError("the trained model's own answers are not finite; nothing was published")
    graph_settings = {"image_shape": list(image_shape), "class_num": logits.shape[1], "softmax": add_softmax}
    description = {**description, "Global": {**description["Global"], **graph_settings}}
    with published(directory, KIND) as partial:
        graph = paddle.jit.to_static(
            Deployed(model, add_softmax),
            input_spec=[paddle.static.InputSpec([None, *image_shape], "float32", name="x")],
            full_graph=True,
        )
        paddle.jit.save(graph, str(partial / GRAPH.removesuffix(".json")))
        if onnx:
            write_onnx(partial)
        write_description(partial, description)
        parity = {"real_images": bool(images), **prove(partial, images or inputs, logits, add_softmax)}
        if onnx:
            parity["engines"]["onnxruntime"]["opset"] = OPSET
        write_description(partial, {**description, "Parity": parity})
    return parity


def _inputs(
    images: Sequence[bytes | np.ndarray], transforms: Sequence[Any], image_shape: Sequence[int]
) -> list[np.ndarray]:
    if images:
        named = ((f"image {number}", image) for number, image in enumerate(images))
        return [transform_image(image, transforms, name)[None] for name, image in named]
    rng = np.random.Generator(np.random.Philox(0))
    return [rng.standard_normal([1, *image_shape], np.float32) for _ in range(4)]


@paddle.no_grad()
def _logits(model: nn.Layer, image: np.ndarray) -> np.ndarray:
    return logits_of(model(paddle.to_tensor(image))).astype("float32").numpy()
