# SPDX-License-Identifier: Apache-2.0
"""A config-driven image-classification framework on PaddlePaddle 3."""

__version__ = "0.1.0"
