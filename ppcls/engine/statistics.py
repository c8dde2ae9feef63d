# SPDX-License-Identifier: Apache-2.0
"""The running statistics of a model: what a forward changes, and a batch that does not count has to leave as it was."""

from __future__ import annotations

from typing import Any

import paddle
from paddle import nn

from ppcls.engine.finite import all_finite, names_not_finite

Kept = list[paddle.Tensor]
"""A copy of the statistics, one flat tensor for each of their types."""


class Statistics:
    """What a model saves and no optimizer moves: means and variances of batch norms above all.

    On a CPU ReLU makes 0 of NaN and max pooling passes over it (Paddle 3.3.1). So a loss may be finite while these
    are not, and a model in evaluation is worth nothing.

    Args:
        model: the model, as it is or inside `paddle.DataParallel`.
    """

    def __init__(self, model: nn.Layer) -> None:
        names = {id(tensor): name for name, tensor in model.state_dict().items() if tensor.stop_gradient}
        # Where each stands, not the tensor: a layer may put another one in its place.
        self._places: dict[str, tuple[dict[str, Any], str]] = {}
        for layer in model.sublayers(include_self=True):
            for holder in (layer._parameters, layer._buffers):
                for key, tensor in holder.items():
                    if id(tensor) in names:
                        self._places.setdefault(names[id(tensor)], (holder, key))

    @paddle.no_grad()
    def copy(self) -> Kept:
        """Return a copy to `restore` from."""
        return [
            paddle.concat([_flat(tensor) for tensor in group]) if len(group) > 1 else _flat(group[0]).clone()
            for group in self._groups()
        ]

    @paddle.no_grad()
    def restore(self, kept: Kept) -> None:
        """Put a copy back."""
        for flat, group in zip(kept, self._groups()):
            start = 0
            for tensor in group:
                tensor.set_value(flat[start : start + tensor.size].reshape(tensor.shape))
                start += tensor.size

    def are_finite(self) -> bool:
        """Whether no value is a NaN or an infinity."""
        return all_finite(self.copy())

    def names_not_finite(self) -> list[str]:
        """The names of those that hold a NaN or an infinity."""
        return names_not_finite(self._tensors())

    def _tensors(self) -> dict[str, paddle.Tensor]:
        return {name: holder[key] for name, (holder, key) in self._places.items()}

    def _groups(self) -> list[list[paddle.Tensor]]:
        groups: dict[Any, list[paddle.Tensor]] = {}
        for tensor in self._tensors().values():
            groups.setdefault(tensor.dtype, []).append(tensor)
        return list(groups.values())


def _flat(tensor: paddle.Tensor) -> paddle.Tensor:
    return tensor if tensor.ndim == 1 else tensor.flatten()
