# SPDX-License-Identifier: Apache-2.0
"""A config-driven image-classification framework on PaddlePaddle 3."""

import warnings

__version__ = "0.1.0"

# Paddle 3.3.1 says these at every start and at every batch norm; neither concerns anyone who trains a model.
warnings.filterwarnings("ignore", message="No ccache found")
warnings.filterwarnings("ignore", message="When training, we now always track global mean and variance")
