# SPDX-License-Identifier: Apache-2.0
"""Whether tensors hold a NaN or an infinity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import paddle


@paddle.no_grad()
def all_finite(tensors: Iterable[paddle.Tensor]) -> bool:
    """Whether every value of every tensor is finite; reads each value once and waits for the device once."""
    floating = [tensor for tensor in tensors if tensor.is_floating_point()]
    sums = [tensor.sum(dtype="float32") for tensor in floating]
    # A sum is finite only if all its addends are. One that is not may have grown too large by itself.
    if not sums or bool(paddle.isfinite(paddle.stack(sums)).all()):
        return True
    return all(map(is_finite, floating))


@paddle.no_grad()
def names_not_finite(tensors: Mapping[str, paddle.Tensor | None]) -> list[str]:
    """The names of those tensors that hold a value which is not finite; None is no tensor."""
    there = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    if all_finite(there.values()):
        return []
    return [name for name, tensor in there.items() if tensor.is_floating_point() and not is_finite(tensor)]


def is_finite(tensor: paddle.Tensor) -> bool:
    """Whether every value of one tensor of real numbers is finite."""
    return bool(paddle.isfinite(tensor).all())
