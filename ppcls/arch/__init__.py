# SPDX-License-Identifier: Apache-2.0
"""Architectures; importing a family here is what registers its names."""

from ppcls.arch import densenet, efficientnet_lite, tiny_darknet
from ppcls.arch.output import logits_of

__all__ = ["densenet", "efficientnet_lite", "logits_of", "tiny_darknet"]
