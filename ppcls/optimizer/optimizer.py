# SPDX-License-Identifier: Apache-2.0
"""Paddle's optimizers, and what an `Optimizer` section adds to them: schedule, clipping, weight decay."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import paddle

from ppcls.config.registry import OPTIMIZERS, Call
from ppcls.optimizer.schedule import Constant
from ppcls.optimizer.timeline import Schedule
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


def build_schedule(settings: Any, epochs: int, step_each_epoch: int) -> Schedule:
    """The learning rate for a training of ``epochs`` with ``step_each_epoch`` optimizer updates each.

    Args:
        settings: the `Optimizer` section (``OptimizerSettings`` of the schema); only its ``lr`` is read.
        epochs: length of the training.
        step_each_epoch: optimizer updates in an epoch.

    Raises:
        ValueError: the schedule refuses its arguments.
    """
    if isinstance(settings.lr, Call):
        return settings.lr(epochs=epochs, step_each_epoch=step_each_epoch)
    return Constant(epochs, step_each_epoch, settings.lr)


def build_optimizer(settings: Any, model: paddle.nn.Layer, schedule: Schedule) -> paddle.optimizer.Optimizer:
    """The optimizer of all parameters of ``model`` that are not frozen.

    Parameters without weight decay are marked on the model: build one optimizer per model.

    Args:
        settings: the `Optimizer` section (``OptimizerSettings`` of the schema).
        model: what is trained.
        schedule: the learning rate.

    Raises:
        ValueError: every parameter is frozen.
    """
    parameters = [parameter for parameter in model.parameters() if not parameter.stop_gradient]
    if not parameters:
        raise ValueError("every parameter of the model is frozen; there is nothing to optimize")
    call = _with_regularizer(settings.optimizer, settings.regularizer)
    runtime = {
        "parameters": parameters,
        "learning_rate": schedule,
        "grad_clip": _gradient_clip(settings.clip_norm, settings.clip_global_norm),
    }
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


def _with_regularizer(call: Call, regularizer: Any) -> Call:
    """The optimizer's call, its ``weight_decay`` replaced by the regularizer (``name``, ``coeff``) if there is one."""
    if regularizer is None:
        return call
    if call.kwargs.get("weight_decay"):
        logger.warning("%s: regularizer takes the place of weight_decay; leave one of them out", call.name)
    decay = {"L1": paddle.regularizer.L1Decay, "L2": paddle.regularizer.L2Decay}[regularizer.name]
    return dataclasses.replace(call, kwargs={**call.kwargs, "weight_decay": decay(regularizer.coeff)})


def _gradient_clip(
    clip_norm: float | None, clip_global_norm: float | None
) -> paddle.nn.ClipGradByNorm | paddle.nn.ClipGradByGlobalNorm | None:
    """Clipping of each gradient by itself, of all together, or none; never both."""
    if clip_norm is not None:
        return paddle.nn.ClipGradByNorm(clip_norm)
    return None if clip_global_norm is None else paddle.nn.ClipGradByGlobalNorm(clip_global_norm)
