# SPDX-License-Identifier: Apache-2.0
"""Paddle's optimizers, and what an `Optimizer` section adds to them: schedule, clipping, weight decay."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from typing import Annotated, Literal

import paddle

from ppcls.config.registry import OPTIMIZERS, SCHEDULES, Block, Call
from ppcls.optimizer.schedule import Schedule
from ppcls.optimizer.weight_decay import decays_unless, exempt_from_regularization, exempt_parameters

logger = logging.getLogger("ppcls")

for _optimizer in (
    paddle.optimizer.SGD,
    paddle.optimizer.Momentum,
    paddle.optimizer.RMSProp,
    paddle.optimizer.Adam,
    paddle.optimizer.AdamW,
):
    OPTIMIZERS.register(_optimizer)


@dataclass(frozen=True)
class RegularizerSettings:
    """A penalty on the weights, added to their gradients.

    Args:
        name: ``L2`` adds ``coeff * weight`` to the gradient, ``L1`` adds ``coeff * sign(weight)``.
        coeff: strength of the penalty, 0 or more.

    Raises:
        ValueError: ``coeff`` is negative.

    YAML::

        regularizer: {name: L2, coeff: 0.0001}
    """

    name: Literal["L1", "L2"]
    coeff: float

    def __post_init__(self) -> None:
        if self.coeff < 0:
            raise ValueError(f"coeff must be 0 or more; got {self.coeff}")


@dataclass(frozen=True)
class OptimizerSettings:
    """One YAML `Optimizer` block: an optimizer of Paddle's, with the keys below among its own.

    Args:
        optimizer: the optimizer.
        lr: the schedule of the learning rate; without a name, a constant.
        regularizer: penalty on the weights; takes the place of ``weight_decay``.
        clip_norm: largest norm of the gradient of each single parameter.
        clip_global_norm: largest norm of all gradients together.
        no_weight_decay_name: parts of parameter names, separated by spaces; what they fit gets no weight decay.
        one_dim_param_no_weight_decay: whether biases and scales of normalization layers get no weight decay.
        scope: the parameters that are optimized; only ``all`` is supported.

    Raises:
        ValueError: both clips, a clip that is not positive, or a regularizer for AdamW.

    YAML::

        Optimizer:
          name: Momentum
          momentum: 0.9
          lr: {name: Cosine, learning_rate: 0.1, warmup_epoch: 5}
          regularizer: {name: L2, coeff: 0.0001}
    """

    optimizer: Annotated[
        Call,
        Block(
            OPTIMIZERS,
            inline=True,
            runtime=("parameters", "learning_rate", "grad_clip", "name", "apply_decay_param_fun", "lr_ratio"),
        ),
    ]
    lr: Annotated[Call, Block(SCHEDULES, runtime=("epochs", "step_each_epoch"), default="Constant")]
    regularizer: RegularizerSettings | None = None
    clip_norm: float | None = None
    clip_global_norm: float | None = None
    no_weight_decay_name: str | None = None
    one_dim_param_no_weight_decay: bool = False
    scope: Literal["all"] = "all"

    def __post_init__(self) -> None:
        if self.clip_norm is not None and self.clip_global_norm is not None:
            raise ValueError("clip_norm (each gradient) and clip_global_norm (all together) exclude each other")
        for name in ("clip_norm", "clip_global_norm"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be above 0; got {value}; leave it out for no clipping")
        if self.optimizer.target is paddle.optimizer.AdamW and self.regularizer is not None:
            raise ValueError("AdamW decays weights apart from gradients; write weight_decay instead of regularizer")


def build_schedule(settings: OptimizerSettings, epochs: int, step_each_epoch: int) -> Schedule:
    """The learning rate for a training of ``epochs`` with ``step_each_epoch`` optimizer updates each.

    Raises:
        ValueError: the schedule refuses its arguments.
    """
    return settings.lr(epochs=epochs, step_each_epoch=step_each_epoch)


def build_optimizer(
    settings: OptimizerSettings, model: paddle.nn.Layer, schedule: Schedule
) -> paddle.optimizer.Optimizer:
    """The optimizer of all parameters of ``model`` that are not frozen.

    Parameters without weight decay are marked on the model: build one optimizer per model.

    Raises:
        ValueError: every parameter is frozen.
    """
    parameters = [parameter for parameter in model.parameters() if not parameter.stop_gradient]
    if not parameters:
        raise ValueError("every parameter of the model is frozen; there is nothing to optimize")
    call = _with_regularizer(settings)
    runtime = {"parameters": parameters, "learning_rate": schedule, "grad_clip": _gradient_clip(settings)}
    if settings.no_weight_decay_name or settings.one_dim_param_no_weight_decay:
        exempt = exempt_parameters(model, settings.no_weight_decay_name, settings.one_dim_param_no_weight_decay)
        if call.target is paddle.optimizer.AdamW:
            runtime["apply_decay_param_fun"] = decays_unless(exempt.values())
        elif call.kwargs.get("weight_decay"):
            exempt_from_regularization(exempt.values())
        else:
            logger.warning(
                "%s: no_weight_decay_name and one_dim_param_no_weight_decay have no effect without a regularizer",
                call.name,
            )
    return call(**runtime)


def _with_regularizer(settings: OptimizerSettings) -> Call:
    """The optimizer's call, its ``weight_decay`` replaced by the regularizer if there is one."""
    call, regularizer = settings.optimizer, settings.regularizer
    if regularizer is None:
        return call
    if call.kwargs.get("weight_decay"):
        logger.warning("%s: regularizer takes the place of weight_decay; leave one of them out", call.name)
    decay = paddle.regularizer.L1Decay if regularizer.name == "L1" else paddle.regularizer.L2Decay
    return dataclasses.replace(call, kwargs={**call.kwargs, "weight_decay": decay(regularizer.coeff)})


def _gradient_clip(settings: OptimizerSettings) -> paddle.nn.ClipGradByNorm | paddle.nn.ClipGradByGlobalNorm | None:
    if settings.clip_norm is not None:
        return paddle.nn.ClipGradByNorm(settings.clip_norm)
    if settings.clip_global_norm is not None:
        return paddle.nn.ClipGradByGlobalNorm(settings.clip_global_norm)
    return None
