# SPDX-License-Identifier: Apache-2.0
"""An optimizer's state by the structured names of its parameters, so that it fits any process that builds the model.

Paddle keys the state by internal names (``conv2d_7.w_0_velocity_0``) that depend on what else was
built before; here the same tensor is ``features.conv.weight/velocity_0``.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import paddle
from paddle import nn

from ppcls.optimizer import Schedule
from ppcls.utils.errors import StorageError

MASTER = "master_weight"
_ACCUMULATOR = re.compile(r"^fp32_master_0_|_0$")
"""What Paddle puts around the word for an accumulator; the numbers are those of an optimizer alone with its model."""


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
        StorageError: they belong to parameters that the model does not have, or are not this optimizer's.
    """
    _require_fitting(optimizer, model, tensors, source)
    internal = {name: parameter.name for name, parameter in model.named_parameters()}
    state: dict[str, Any] = {"LR_Scheduler": schedule.state_dict()}
    masters: dict[str, paddle.Tensor] = {}
    for key, array in tensors.items():
        name, _, accumulator = key.rpartition("/")
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


def _require_fitting(
    optimizer: paddle.optimizer.Optimizer, model: nn.Layer, tensors: dict[str, np.ndarray], source: str
) -> None:
    # Paddle (3.3.1) finds out at the first update, with an AssertionError, or never.
    kind = type(optimizer).__name__
    own = {getattr(optimizer, name) for name in dir(type(optimizer)) if name.endswith(("_acc_str", "_max_str"))}
    parameters = dict(model.named_parameters())
    kept: dict[str, set[str]] = {}
    for key, array in tensors.items():
        name, _, accumulator = key.rpartition("/")
        if name not in parameters:
            raise StorageError(f"{source}: the optimizer's state is of another model (it has '{name:.80}')")
        shape = list(parameters[name].shape)
        # What float32 cannot be read from is bfloat16, whose bits come as whole numbers.
        is_number = array.dtype.kind == "f" or (array.dtype == np.uint16 and "bfloat16" in str(parameters[name].dtype))
        word = _ACCUMULATOR.sub("", accumulator)
        # A power of a beta is one number; of optimizers that are not Paddle's nothing is known.
        shapes = (shape, [1]) if word.endswith("_pow_acc") or not own else (shape,)
        if not is_number or list(array.shape) not in shapes:
            raise StorageError(
                f"{source}: the optimizer's state does not fit: {key:.80} is {array.dtype} {list(array.shape)}, "
                f"the parameter {shape}"
            )
        if own and word not in {*own, MASTER}:
            raise StorageError(f"{source}: the optimizer's state is not that of {kind} (it has '{word:.80}')")
        kept.setdefault(name, set()).add(word)
    sets = {name: words - {MASTER} for name, words in kept.items()}
    whole = set().union(*sets.values())
    if partial := next((name for name, words in sets.items() if words != whole), None):
        raise StorageError(f"{source}: the optimizer's state is not whole: something of '{partial:.80}' is missing")


def _owner(key: str, names: dict[str, str]) -> str:
    """The parameter whose internal name the key starts with, the longest when several do."""
    end = key.rfind("_")
    while key[:end] not in names:
        end = key.rindex("_", 0, end)
    return key[:end]
