# SPDX-License-Identifier: Apache-2.0
"""A weighted sum of losses, as the `Loss` section lists them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import paddle
from paddle import Tensor


class CombinedLoss(paddle.nn.Layer):
    """The weighted sum of several losses and what each contributes to it.

    Args:
        losses: each loss, a Layer, after its weight.

    Raises:
        ValueError: there is no loss, or one that is not reduced to a single value.
    """

    def __init__(self, losses: Sequence[tuple[float, paddle.nn.Layer]]) -> None:
        super().__init__()
        if not losses:
            raise ValueError("the list of losses is empty; give at least one, such as - CELoss: {weight: 1.0}")
        for _, loss in losses:
            if getattr(loss, "reduction", "mean") == "none":
                raise ValueError(f"{type(loss).__name__}: reduction none gives no single value; use mean or sum")
        self.weights = [weight for weight, _ in losses]
        self.losses = paddle.nn.LayerList([loss for _, loss in losses])

    def forward(self, output: Any, labels: Tensor) -> dict[str, Tensor]:
        """Every weighted part under its own name, and their sum under ``loss``; all scalars.

        A name that comes a second time gets the suffix ``_2``, so that no part is lost.

        Raises:
            ValueError: a part has more than one value (``reduction: none``).
        """
        parts: dict[str, Tensor] = {}
        for weight, loss in zip(self.weights, self.losses):
            for name, value in loss(output, labels).items():
                if value.size != 1:
                    raise ValueError(f"{name} has shape {list(value.shape)}, not one value; use reduction: mean or sum")
                # PaddleClas: the weight of a single loss is ignored; here every weight counts.
                parts[_unused(name, parts)] = value * weight
        return {**parts, "loss": paddle.add_n(list(parts.values()))}


def is_mean(loss: paddle.nn.Layer) -> bool:
    """Whether a loss is a mean over images, so that it can be computed of a part of a batch.

    A loss says so by its attribute ``reduction``, or, if it compares images with each other, by ``needs_whole_batch``.
    """
    return getattr(loss, "reduction", "mean") == "mean" and not getattr(loss, "needs_whole_batch", False)


def build_loss(items: Sequence[Any]) -> CombinedLoss:
    """The sum that a YAML list of losses describes.

    Args:
        items: entries with a ``loss``, a `Call`, and its ``weight`` (``LossItem`` of the schema).

    Raises:
        ValueError: the list is empty, or a loss refuses its arguments.
    """
    return CombinedLoss([(item.weight, item.loss()) for item in items])


def _unused(name: str, taken: dict[str, Tensor]) -> str:
    """``name``, or with the first suffix ``_2``, ``_3``, ... that is free; ``loss`` is kept for the sum."""
    candidate, number = name, 1
    while candidate in taken or candidate == "loss":
        number += 1
        candidate = f"{name}_{number}"
    return candidate
