# SPDX-License-Identifier: Apache-2.0
"""A trained model as a static graph with its preprocessing, published only when it gives the trained answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from ppcls import __version__
from ppcls.arch.output import logits_of
from ppcls.data.images import transform_image
from ppcls.data.transforms.tensor import NormalizeImage
from ppcls.deploy.bundle import FORMAT, GRAPH, KIND, write_description
from ppcls.deploy.cases import cases
from ppcls.deploy.fold import split_normalization
from ppcls.deploy.parity import prove
from ppcls.deploy.to_onnx import OPSET, write_onnx
from ppcls.utils.environment import package_versions
from ppcls.utils.errors import ConfigError, ParityError
from ppcls.utils.leftovers import clear_after_the_dead
from ppcls.utils.storage import published

NUM_NOISE = 4


@dataclass(frozen=True)
class Wanted:
    """What kind of bundle an export makes.

    Attributes:
        image_shape: channels, height, width; -1 for a height and width that are free.
        add_softmax: whether the graph ends in softmax.
        onnx: also write ``model.onnx``.
        fold_preprocess: the graph takes uint8 [N, H, W, 3] and normalizes by itself.
        allow_mismatch: engines that are marked as unfit where they differ, instead of refusing.
    """

    image_shape: Sequence[int]
    add_softmax: bool = True
    onnx: bool = False
    fold_preprocess: bool = False
    allow_mismatch: Sequence[str] = ()

    @property
    def is_size_free(self) -> bool:
        """Whether the graph takes images of any height and width."""
        return min(self.image_shape) < 0

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The engines that it is proven for."""
        return ("paddle", "paddle_onednn", *(["onnxruntime"] if self.onnx else []))


class Deployed(nn.Layer):
    """The graph that is exported: a batch of images to probabilities (or logits) [N, class_num].

    Args:
        model: the trained model.
        add_softmax: end in softmax.
        normalize: take uint8 [N, H, W, 3] and begin with this; None takes float32 [N, C, H, W].
    """

    def __init__(self, model: nn.Layer, add_softmax: bool, normalize: NormalizeImage | None = None) -> None:
        super().__init__()
        self.model = model
        self.add_softmax = add_softmax
        self.normalize = normalize

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Probabilities, or logits without ``add_softmax``."""
        images = x if self.normalize is None else self.normalize.finish(x.transpose([0, 3, 1, 2]))
        logits = logits_of(self.model(images))
        return nn.functional.softmax(logits, axis=-1) if self.add_softmax else logits


def export_model(
    model: nn.Layer,
    directory: str | os.PathLike,
    wanted: Wanted,
    transforms: Sequence[Any],
    description: dict[str, Any],
    images: Sequence[bytes | np.ndarray],
    add_more: Callable[[Path], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Write ``inference.json``, ``inference.pdiparams`` and ``inference.yml``, and prove them before they appear.

    A fresh process reads the images by ``inference.yml`` and runs the graph in every engine; its logits are held
    against those of ``model``.

    Args:
        model: in any mode; it is left in evaluation mode.
        directory: what appears, whole, when the answers agree.
        wanted: what kind of bundle.
        transforms: the preprocessing, for the trained side of the comparison.
        description: what ``inference.yml`` says: ``Global``, ``PreProcess``, ``PostProcess``.
        images: real images to compare on, each a file's bytes or uint8 [H, W, 3]; without any, noise is
            used, and the manifest says so.
        add_more: adds files to the directory before it appears, and gives what the manifest says of them.

    Returns:
        What the manifest says of the proof.

    Raises:
        ConfigError: the transforms do not end in images of ``image_shape``.
        ParityError: the graph cannot be converted to ONNX, or the answers differ by more than 1e-5 of the
            largest logit; nothing is published.
        StorageError: the directory cannot be written.
    """
    model.eval()
    before, normalize = split_normalization(transforms) if wanted.fold_preprocess else (transforms, None)
    dtype = "uint8" if normalize else "float32"
    inputs = _inputs(images, before, wanted, dtype)
    logits = {case: _logits(model, batch, normalize) for case, batch in cases(inputs, wanted.is_size_free).items()}
    if not all(np.isfinite(each).all() for each in logits.values()):
        raise ParityError("the trained model's own answers are not finite; nothing was published")
    class_num = next(iter(logits.values())).shape[1]
    graph_settings = {"image_shape": list(wanted.image_shape), "class_num": class_num, "softmax": wanted.add_softmax}
    if normalize:
        operations = description["PreProcess"]["transform_ops"][: len(before)]
        description = {**description, "PreProcess": {"transform_ops": operations}}
        graph_settings["dtype"] = dtype
    description = {**description, "Global": {**description["Global"], **graph_settings}}
    about: dict[str, Any] = {"format": FORMAT, "versions": {"ppcls": __version__, **package_versions()}}
    clear_after_the_dead(directory)
    with published(directory, KIND, about=about) as partial:
        _save_graph(Deployed(model, wanted.add_softmax, normalize), partial / GRAPH, wanted.image_shape, dtype)
        if wanted.onnx:
            write_onnx(partial)
        write_description(partial, description)
        asked = images or inputs
        proof = prove(partial, asked, logits, wanted.add_softmax, wanted.runtimes, wanted.allow_mismatch)
        about.update({name: proof.pop(name) for name in ("unfit", "fastest")})
        about["parity"] = {"real_images": bool(images), **proof}
        if wanted.onnx:
            about["onnx_opset"] = OPSET
        if add_more:
            about.update(add_more(partial))
    return about["parity"]


def _save_graph(graph: nn.Layer, path: os.PathLike, image_shape: Sequence[int], dtype: str) -> None:
    channels, *size = (None if side < 0 else side for side in image_shape)
    shape = [None, *size, channels] if dtype == "uint8" else [None, channels, *size]
    spec = paddle.static.InputSpec(shape, dtype, name="x")
    paddle.jit.save(paddle.jit.to_static(graph, input_spec=[spec], full_graph=True), str(path).removesuffix(".json"))


def _inputs(
    images: Sequence[bytes | np.ndarray], transforms: Sequence[Any], wanted: Wanted, dtype: str
) -> list[np.ndarray]:
    """What the graph takes, without a batch axis."""
    channels, height, width = (224 if side < 0 else side for side in wanted.image_shape)
    if not images:
        rng = np.random.Generator(np.random.Philox(0))
        if dtype == "uint8":
            return list(rng.integers(0, 256, [NUM_NOISE, height, width, channels], np.uint8))
        return list(rng.standard_normal([NUM_NOISE, channels, height, width], np.float32))
    inputs = [transform_image(image, transforms, f"image {number}", dtype) for number, image in enumerate(images)]
    for image in inputs:
        shape = list(np.roll(image.shape, 1)) if dtype == "uint8" else list(image.shape)
        if any(side not in (-1, given) for side, given in zip(wanted.image_shape, shape)):
            raise ConfigError(
                f"Global.image_shape: {list(wanted.image_shape)}, but Infer.transforms end in images of "
                f"{[int(side) for side in shape]}; write the shape that they end in"
            )
    return inputs


@paddle.no_grad()
def _logits(model: nn.Layer, images: np.ndarray, normalize: NormalizeImage | None) -> np.ndarray:
    if normalize:
        images = normalize.finish(images.transpose(0, 3, 1, 2).copy())
    return logits_of(model(paddle.to_tensor(images))).astype("float32").numpy()
