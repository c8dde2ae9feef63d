# SPDX-License-Identifier: Apache-2.0
"""Where in a model the first value appears that is not finite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import paddle
from paddle import nn

from ppcls.engine.finite import is_finite


@dataclass
class FirstBad:
    """What was not finite first.

    Attributes:
        forward: the layer whose output was it, in the order of computation; empty if none.
        backward: the layer the gradient at whose output was it, in the order of the backward; empty if none.
        images: the numbers in the batch of the images in that layer's output, from 0; empty if it cannot be said.
    """

    forward: str = ""
    backward: str = ""
    images: list[int] = field(default_factory=list)


@contextmanager
def first_bad_layer(model: nn.Layer) -> Iterator[FirstBad]:
    """Look at what every layer gives, and at the gradients that come back to it, while the block runs.

    Args:
        model: the model, not the `paddle.DataParallel` around it.
    """
    found = FirstBad()
    # Images of the pieces of the batch that were computed before the present one, and of that one.
    images = {"before": 0, "now": 0}

    def begin(layer: nn.Layer, inputs: tuple) -> None:
        images["before"] += images["now"]
        images["now"] = next((len(each) for each in inputs if isinstance(each, paddle.Tensor) and each.ndim), 0)

    def look_at(name: str, output: Any) -> None:
        for tensor in _tensors_in(output):
            if not found.forward and not is_finite(tensor):
                found.forward = name
                found.images = [images["before"] + number for number in bad_rows(tensor, images["now"])]
            if not tensor.stop_gradient:
                tensor.register_hook(lambda gradient: look_back(name, gradient))

    def look_back(name: str, gradient: paddle.Tensor) -> None:
        if not found.backward and not is_finite(gradient):
            found.backward = name

    before: Any = begin  # Paddle 3.3.1 says that hooks return tensors, and takes None for no change
    handles = [model.register_forward_pre_hook(before)]
    for name, layer in model.named_sublayers(include_self=True):
        shown = name or type(model).__name__
        after: Any = lambda _, __, output, shown=shown: look_at(shown, output)  # noqa: E731
        handles.append(layer.register_forward_post_hook(after))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def bad_rows(tensor: paddle.Tensor, num_images: int) -> list[int]:
    """The images, by their numbers, that have a value which is not finite in a tensor [num_images, ...]."""
    if not tensor.ndim or not num_images or len(tensor) != num_images:
        return []
    rows = paddle.isfinite(tensor.detach()).reshape([num_images, -1]).all(axis=1).numpy()
    return np.flatnonzero(~rows).tolist()


def _tensors_in(output: Any) -> list[paddle.Tensor]:
    if isinstance(output, paddle.Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, dict):
        output = list(output.values())
    return [tensor for each in output for tensor in _tensors_in(each)] if isinstance(output, (list, tuple)) else []
