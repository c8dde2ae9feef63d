# SPDX-License-Identifier: Apache-2.0
"""A trained model as a static graph with its preprocessing, published only when it gives the trained answers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import yaml
from paddle import nn

from ppcls.arch.output import logits_of
from ppcls.data.images import load_image
from ppcls.utils.errors import ConfigError, ParityError
from ppcls.utils.storage import published

TOLERANCE = 1e-5
SMALLEST_PROBABILITY = 1e-27
PREFIX = "inference"
DESCRIPTION = "inference.yml"
KIND = "deployed model"


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
    image_paths: Sequence[str],
) -> dict[str, Any]:
    """Write ``inference.json``, ``inference.pdiparams`` and ``inference.yml``, and prove them before they appear.

    A fresh process reads the images by ``inference.yml``, runs the graph with Paddle Inference, and
    its logits are held against those of ``model``.

    Args:
        model: in any mode; it is left in evaluation mode.
        directory: what appears, whole, when the answers agree.
        image_shape: channels, height, width.
        add_softmax: whether the graph ends in softmax.
        transforms: the preprocessing, for the trained side of the comparison.
        description: what ``inference.yml`` says: ``Global``, ``PreProcess``, ``PostProcess``.
        image_paths: real images to compare on; without any, noise is used, and the description says so.

    Returns:
        The parity figures that ``inference.yml`` records.

    Raises:
        ConfigError: the transforms do not end in images of ``image_shape``.
        ParityError: the answers differ by more than 1e-5 of the largest logit; nothing is published.
        StorageError: the directory cannot be written.
    """
    model.eval()
    images = _images(image_paths, transforms, image_shape)
    for image in images:
        if list(image.shape[1:]) != list(image_shape):
            raise ConfigError(
                f"Global.image_shape: {list(image_shape)}, but Infer.transforms end in images of "
                f"{list(image.shape[1:])}; write the shape that they end in"
            )
    logits = np.concatenate([_logits(model, image) for image in images])
    if not np.isfinite(logits).all():
        raise ParityError("the trained model's own answers are not finite; nothing was published")
    with published(directory, KIND) as partial:
        graph = paddle.jit.to_static(
            Deployed(model, add_softmax),
            input_spec=[paddle.static.InputSpec([None, *image_shape], "float32", name="x")],
            full_graph=True,
        )
        paddle.jit.save(graph, str(partial / PREFIX))
        _write_description(partial, {**description, "Parity": {"softmax": add_softmax}})
        parity = _compare(partial, image_paths, images, logits, add_softmax)
        _write_description(partial, {**description, "Parity": parity})
    return parity


def _images(paths: Sequence[str], transforms: Sequence[Any], image_shape: Sequence[int]) -> list[np.ndarray]:
    if paths:
        return [load_image(path, transforms)[None] for path in paths]
    rng = np.random.Generator(np.random.Philox(0))
    return [rng.standard_normal([1, *image_shape], np.float32) for _ in range(4)]


@paddle.no_grad()
def _logits(model: nn.Layer, image: np.ndarray) -> np.ndarray:
    return logits_of(model(paddle.to_tensor(image))).astype("float32").numpy()


def _write_description(directory: Path, description: dict[str, Any]) -> None:
    text = yaml.safe_dump(description, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    (directory / DESCRIPTION).write_text(text, encoding="utf-8")


def _compare(
    directory: Path, paths: Sequence[str], images: list[np.ndarray], logits: np.ndarray, add_softmax: bool
) -> dict[str, Any]:
    outputs = _outputs_of_fresh_process(directory, paths, images)
    if not np.isfinite(outputs).all():
        raise ParityError("the exported graph's answers are not finite; nothing was published")
    limit = TOLERANCE * float(np.abs(logits).max())
    # The logarithm of a probability is its logit less a number that all classes share.
    wanted = _log_softmax(logits) if add_softmax else logits
    # Paddle's softmax on the CPU cuts probabilities off at exp(-64), below which nothing can be compared.
    comparable = outputs > SMALLEST_PROBABILITY if add_softmax else np.ones(outputs.shape, bool)
    with np.errstate(divide="ignore"):
        given = np.log(outputs) if add_softmax else outputs
    difference = float(np.abs(given - wanted)[comparable].max())
    agreement = float((outputs.argmax(1) == logits.argmax(1)).mean())
    if not (difference <= limit and agreement == 1.0):
        raise ParityError(
            f"the exported graph differs from the trained model by {difference:.3g} (allowed {limit:.3g}), "
            f"same first class for {agreement:.0%} of {len(logits)} images; nothing was published"
        )
    return {
        "softmax": add_softmax,
        "images": len(logits),
        "real_images": bool(paths),
        "largest_logit": float(np.abs(logits).max()),
        "largest_difference": difference,
        "compared": round(float(comparable.mean()), 4),
        "tolerance": limit,
        "same_top1": agreement,
        "engine": "paddle.inference, plain (oneDNN off)",
        "paddle": paddle.__version__,
    }


def _outputs_of_fresh_process(directory: Path, paths: Sequence[str], images: list[np.ndarray]) -> np.ndarray:
    request = directory / "request.npz"
    answer = directory / "answer.npy"
    # Images go as paths, so that the fresh process preprocesses them by inference.yml, as a user of it would.
    arrays = {} if paths else {f"image_{index}": image for index, image in enumerate(images)}
    np.savez(request, paths=np.array([os.path.abspath(path) for path in paths], dtype=str), **arrays)
    command = [sys.executable, "-m", "ppcls.deploy.answer", str(directory), str(request), str(answer)]
    root = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PADDLE_")}
    finished = subprocess.run(
        command, env={**environment, "PYTHONPATH": search}, capture_output=True, text=True, check=False
    )
    if finished.returncode != 0:
        reason = (finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"])[-1]
        raise ParityError(f"the exported graph does not run in a fresh process ({reason})")
    outputs = np.load(answer, allow_pickle=False)
    request.unlink()
    answer.unlink()
    return outputs


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
