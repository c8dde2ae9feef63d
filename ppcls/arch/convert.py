# SPDX-License-Identifier: Apache-2.0
"""Weights from PyTorch: other names, linear layers the other way round, and counters that nothing here needs."""

from __future__ import annotations

import numpy as np
from paddle import nn

from ppcls.arch.pretrained import LoadReport, load_weights
from ppcls.utils.errors import StorageError

STATISTICS = {"running_mean": "_mean", "running_var": "_variance"}
COUNTER = "num_batches_tracked"


def load_foreign(model: nn.Layer, weights: dict[str, np.ndarray], source: str) -> LoadReport:
    """Fill a model with weights that may have PyTorch's names and layouts; all of it, or nothing when refused.

    Which of the namings that ``model.pytorch_names()`` gives is used is decided by what fits best, the model's own
    included. Weights with Paddle's names pass through as they are.

    Args:
        model: any architecture; without ``pytorch_names`` the layers have to bear the same names as here.
        weights: arrays by name, as `read_weights` gives them.
        source: where they came from, for messages.

    Raises:
        StorageError: a name is missing, left over or of another shape, two names mean one, or a value is not finite.
    """
    weights = {name: array for name, array in weights.items() if name.rpartition(".")[2] != COUNTER}
    is_from_pytorch = any(name.rpartition(".")[2] in STATISTICS for name in weights)
    namings = model.pytorch_names() if hasattr(model, "pytorch_names") else ()
    ours = model.state_dict().keys()
    candidates = [_renamed(weights, naming) for naming in ({}, *namings)]
    origin = max(candidates, key=lambda names: len(ours & names.keys()))
    if len(origin) < len(weights):
        double = next(name for name in weights if name not in origin.values())
        raise StorageError(f"{source}: {double} and another name both mean one array of the model")
    linear = {
        f"{name}.weight"
        for name, layer in model.named_sublayers()
        if isinstance(layer, nn.Linear) and (is_from_pytorch or origin is not candidates[0])
    }
    arrays = {name: weights[theirs].T if name in linear else weights[theirs] for name, theirs in origin.items()}
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise StorageError(f"{source}: {origin[name]} has values that are not finite")
    return load_weights(model, arrays, source, allow="none")


def state_arrays(model: nn.Layer) -> dict[str, np.ndarray]:
    """Every entry of the state dict as a contiguous array."""
    return {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in model.state_dict().items()}


def count_parameters(model: nn.Layer) -> int:
    """The number of trainable values."""
    return sum(int(parameter.size) for parameter in model.parameters() if parameter.trainable)


def _renamed(weights: dict[str, np.ndarray], naming: dict[str, str]) -> dict[str, str]:
    """The source's name by the name here; names of layers that the naming does not know stay."""
    names = {}
    for name in weights:
        layer, _, leaf = name.rpartition(".")
        names[f"{naming.get(layer, layer)}.{STATISTICS.get(leaf, leaf)}"] = name
    return names
