# SPDX-License-Identifier: Apache-2.0
"""Architectures; importing a family here is what registers its names."""

from ppcls.arch import densenet, tiny_darknet
from ppcls.arch.output import logits_of

__all__ = ["densenet", "logits_of", "tiny_darknet"]
