# SPDX-License-Identifier: Apache-2.0
"""Optimizers and learning rate schedules. Importing registers them."""

from ppcls.optimizer.optimizer import OptimizerSettings, RegularizerSettings, build_optimizer, build_schedule
from ppcls.optimizer.schedule import (
    Constant,
    ConstLR,
    Cosine,
    Linear,
    MultiStepDecay,
    Piecewise,
    Schedule,
    Step,
)

__all__ = [
    "ConstLR",
    "Constant",
    "Cosine",
    "Linear",
    "MultiStepDecay",
    "OptimizerSettings",
    "Piecewise",
    "RegularizerSettings",
    "Schedule",
    "Step",
    "build_optimizer",
    "build_schedule",
]
