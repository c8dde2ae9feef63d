# SPDX-License-Identifier: Apache-2.0
"""Who gets weight decay, and who does not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import paddle
from paddle import Tensor

logger = logging.getLogger("ppcls")


def exempt_parameters(
    model: paddle.nn.Layer, name_parts: str | None = None, one_dimensional: bool = False
) -> dict[str, Tensor]:
    """The trainable parameters that get no weight decay, by structured name (``out.bias``).

    Args:
        model: whose parameters are meant.
        name_parts: parameters with one of these parts, separated by spaces, in their structured name.
        one_dimensional: parameters of one dimension: biases and the scales of normalization layers.
    """
    parts = name_parts.split() if name_parts else []
    trainable = {name: parameter for name, parameter in model.named_parameters() if not parameter.stop_gradient}
    unknown = [part for part in parts if not any(part in name for name in trainable)]
    if unknown:
        logger.warning(
            "no_weight_decay_name: %s is in no parameter name; names look like '%s'",
            ", ".join(unknown),
            next(iter(trainable), ""),
        )
    return {
        name: parameter
        for name, parameter in trainable.items()
        if (one_dimensional and parameter.ndim == 1) or any(part in name for part in parts)
    }


def decays_unless(exempt: Iterable[Tensor]) -> Callable[[str], bool]:
    """AdamW's ``apply_decay_param_fun``: whether the parameter with Paddle's own name for it is decayed."""
    names = frozenset(parameter.name for parameter in exempt)
    return lambda name: name not in names


def exempt_from_regularization(exempt: Iterable[Tensor]) -> None:
    """Mark parameters, so that every optimizer but AdamW leaves its regularizer out for them.

    The mark is Paddle's own, ``ParamAttr(regularizer=...)``. Parameter groups, the other way, would clip the
    global norm of each group apart, and reset the ``regularizer`` and learning rate factor of every parameter
    (Paddle 3.3.1, ``Optimizer._add_param_group``).
    """
    for parameter in exempt:
        parameter.regularizer = paddle.regularizer.L2Decay(0.0)
