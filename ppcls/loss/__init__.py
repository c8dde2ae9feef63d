# SPDX-License-Identifier: Apache-2.0
"""Losses: called with a model's output and labels, they return named scalars. Importing registers them."""

from ppcls.loss.combined import CombinedLoss, build_loss, is_mean
from ppcls.loss.cross_entropy import CELoss

__all__ = ["CELoss", "CombinedLoss", "build_loss", "is_mean"]
