# SPDX-License-Identifier: Apache-2.0
"""How long engines take for one image, on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

NUM_ROUNDS, NUM_CALLS, NUM_UNTIMED = 5, 8, 3
MAX_SECONDS = 2.0
"""An engine that has computed for so long takes no part in further rounds."""


def latencies(engines: Mapping[str, Callable[[np.ndarray], object]], image: np.ndarray) -> dict[str, float]:
    """Milliseconds that each engine needs for one image: medians over rounds, so that all meet the same load.

    An engine's threads wait busily for a while after a call, so the first calls of a round do not count.

    Args:
        engines: by their names.
        image: of the graph's input, without a batch axis.
    """
    taken: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(NUM_ROUNDS):
        for name, engine in engines.items():
            if sum(taken[name]) > MAX_SECONDS:
                continue
            for _ in range(NUM_UNTIMED):
                engine(image[None])
            for _ in range(NUM_CALLS):
                start = time.perf_counter()
                engine(image[None])
                taken[name].append(time.perf_counter() - start)
    return {name: round(1e3 * float(np.median(times)), 3) for name, times in taken.items()}
