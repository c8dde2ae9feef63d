# SPDX-License-Identifier: Apache-2.0
"""An optimizer's state by the structured names of its parameters, so that it fits any process that builds the model.

Paddle keys the state by internal names (``conv2d_7.w_0_velocity_0``) that depend on what else was
built before; here the same tensor is ``features.conv.weight/velocity_0``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
from paddle import nn

from ppcls.optimizer import Schedule
from ppcls.utils.errors import StorageError

MASTER = "master_weight"


def optimizer_tensors(optimizer: paddle.optimizer.Optimizer, model: nn.Layer) -> dict[str, np.ndarray]:
    """Every accumulator, and the full-precision copies of O2, as ``structured name/accumulator``."""
    structured = {parameter.name: name for name, parameter in model.named_parameters()}
    tensors: dict[str, np.ndarray] = {}
    for key, value in optimizer.state_dict().items():
        if key == "master_weights":
            tensors.update({f"{structured[name]}/{MASTER}": master.numpy() for name, master in value.items()})
        elif isinstance(value, paddle.Tensor):
            name = _owner(key, structured)
            tensors[f"{structured[name]}/{key[len(name) + 1 :]}"] = np.ascontiguousarray(value.numpy())
    return tensors


def restore_optimizer(
    optimizer: paddle.optimizer.Optimizer,
    model: nn.Layer,
    tensors: dict[str, np.ndarray],
    schedule: Schedule,
    source: str,
) -> None:
    """Put the tensors of `optimizer_tensors` back into an optimizer of the same kind over the same model.

    Raises:
        StorageError: they belong to parameters that the model does not have.
    """
    internal = {name: parameter.name for name, parameter in model.named_parameters()}
    state: dict[str, Any] = {"LR_Scheduler": schedule.state_dict()}
    masters: dict[str, paddle.Tensor] = {}
    for key, array in tensors.items():
        name, _, accumulator = key.rpartition("/")
        if name not in internal:
            raise StorageError(f"{source}: the optimizer's state is of another model (it has '{name}')")
        tensor = paddle.to_tensor(np.array(array))
        if accumulator == MASTER:
            tensor.name = f"{internal[name]}_fp32_master_0"
            masters[internal[name]] = tensor
        else:
            tensor.name = f"{internal[name]}_{accumulator}"
            state[tensor.name] = tensor
    if masters:
        state["master_weights"] = masters
    optimizer.set_state_dict(state)


def _owner(key: str, names: dict[str, str]) -> str:
    """The parameter whose internal name the key starts with, the longest when several do."""
    return max((name for name in names if key.startswith(f"{name}_")), key=len)
