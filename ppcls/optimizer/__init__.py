# SPDX-License-Identifier: Apache-2.0
"""Optimizers and learning rate schedules. Importing registers them."""

from ppcls.optimizer.optimizer import build_optimizer, build_schedule
from ppcls.optimizer.schedule import (
    Constant,
    ConstLR,
    Cosine,
    Linear,
    MultiStepDecay,
    Piecewise,
    Step,
)
from ppcls.optimizer.timeline import Schedule

__all__ = [
    "ConstLR",
    "Constant",
    "Cosine",
    "Linear",
    "MultiStepDecay",
    "Piecewise",
    "Schedule",
    "Step",
    "build_optimizer",
    "build_schedule",
]
