# SPDX-License-Identifier: Apache-2.0
"""Seeds as functions of where a run is, so that nothing has to be remembered to continue it."""

from __future__ import annotations

import random

import numpy as np
import paddle


def seed_everything(seed: int, *place: int) -> None:
    """Seed Python, NumPy and Paddle from the run's seed and a place in it, such as (epoch, rank)."""
    words = np.random.SeedSequence([seed, *place]).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    paddle.seed(int(words[2]))


def seed_device(seed: int, *place: int) -> None:
    """Seed what layers draw from (dropout and the like) for one batch."""
    paddle.seed(int(np.random.SeedSequence([seed, *place]).generate_state(1)[0]))
