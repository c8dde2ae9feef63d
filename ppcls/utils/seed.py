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


def seed_batch(seed: int, *place: int) -> None:
    """Seed what a model, its loss and its layers (dropout and the like) draw from while they compute one batch.

    So whatever they take from the global generators of Paddle, NumPy and Python follows from the place of the batch,
    and a run that is continued there takes the same. Operations on images are not within it: samples are made ahead,
    in any number of processes, and draw from the generator that they are given.

    Args:
        seed: of the run.
        place: such as (epoch, batch, rank).
    """
    words = np.random.SeedSequence([seed, *place]).generate_state(3)
    paddle.seed(int(words[0]))
    np.random.seed(int(words[1]))
    random.seed(int(words[2]))
