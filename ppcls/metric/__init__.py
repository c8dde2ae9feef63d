# SPDX-License-Identifier: Apache-2.0
"""Metrics: fed batch by batch, they return named figures between 0 and 1. Importing registers them."""

from ppcls.metric.combined import CombinedMetric, Metric
from ppcls.metric.topk import CORRECT, TopkAcc

__all__ = ["CORRECT", "CombinedMetric", "Metric", "TopkAcc"]
