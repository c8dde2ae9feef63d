# SPDX-License-Identifier: Apache-2.0
"""What is drawn for each sample: a function of (seed, epoch, index), under every version of every library.

The numbers come from Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), a cipher
on a counter: the n-th number of a sample is computed without those before it, for one sample or for a whole batch.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

_LOW = 0xFFFFFFFF
_ROUNDS = 10


def philox(counter: tuple[Any, Any, Any, Any], key: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    """Return the four 32-bit words that a counter of four 32-bit words turns into.

    Args:
        counter: each an int, or an array of uint64 [N] for N counters at once.
        key: two 32-bit words.
    """
    c0, c1, c2, c3 = counter
    for k0, k1 in _round_keys(key):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c3 ^ k1, p0 & 0xFFFFFFFF
    return c0, c1, c2, c3


@lru_cache(maxsize=8)
def _round_keys(key: tuple[int, int]) -> list[tuple[int, int]]:
    k0, k1 = key
    return [((k0 + n * 0x9E3779B9) & _LOW, (k1 + n * 0xBB67AE85) & _LOW) for n in range(_ROUNDS)]


class _Draws:
    """Numbers in 0..1, two from each block of the cipher."""

    def __init__(self, seed: int, epoch: int, index: Any) -> None:
        self._key = (seed & _LOW, (seed >> 32) & _LOW)
        self._place = (index & _LOW, (index >> 32) & _LOW, epoch & _LOW)
        self._num_blocks = 0
        self._left: list[Any] = []

    def random(self) -> Any:
        """Return a number in 0..1, 1 excluded, on a grid of 2**-53."""
        if not self._left:
            self._left = self._next_numbers()[::-1]
        return self._left.pop()

    def _next_numbers(self) -> list[Any]:
        """Return the numbers of the next block, in their order."""
        words = philox((self._num_blocks, *self._place), self._key)
        self._num_blocks += 1
        return [_number(*words[:2]), _number(*words[2:])]

    def uniform(self, low: Any = 0.0, high: Any = 1.0) -> Any:
        """Return a number between ``low`` and ``high``."""
        return low + (high - low) * self.random()


def _number(high: Any, low: Any) -> Any:
    return ((high >> 5) * 2**26 + (low >> 6)) * 2.0**-53


class SampleRng(_Draws):
    """The random numbers of one sample in one epoch, with the methods of NumPy's ``Generator``.

    Args:
        seed: of the run.
        epoch: from 1 on.
        index: of the sample in its data set.
    """

    def __init__(self, seed: int, epoch: int, index: int) -> None:
        super().__init__(seed, int(epoch), int(index))

    def integers(self, low: int, high: int) -> int:
        """Return a whole number from ``low`` on, below ``high``."""
        return low + int(self.random() * (high - low))

    def normal(self, loc: float = 0.0, scale: float = 1.0) -> float:
        """Return a normally distributed number (Box and Muller, 1958)."""
        radius = math.sqrt(-2.0 * math.log(1.0 - self.random()))
        return loc + scale * radius * math.cos(2.0 * math.pi * self.random())

    def permutation(self, num: int) -> list[int]:
        """Return 0..num-1 in random order."""
        keys = [self.random() for _ in range(num)]
        return sorted(range(num), key=keys.__getitem__)

    def beta(self, a: float, b: float) -> float:
        """Return a number of the beta distribution."""
        return float(self._numpy().beta(a, b))

    def dirichlet(self, alpha: list[float]) -> np.ndarray:
        """Return numbers of the Dirichlet distribution, float64, which sum up to 1."""
        return self._numpy().dirichlet(alpha)

    def _numpy(self) -> np.random.Generator:
        """For what takes an unknown number of draws; follows from the next number, and so from the place."""
        return np.random.Generator(np.random.Philox(int(self.random() * 2**53)))


class BatchRng(_Draws):
    """The random numbers of many samples at once: each sample's are those of its `SampleRng`, in the same order.

    Args:
        seed: of the run.
        epoch: from 1 on.
        indices: of the samples in their data set, int64 [N].
    """

    def __init__(self, seed: int, epoch: int, indices: np.ndarray) -> None:
        super().__init__(seed, int(epoch), indices.astype(np.uint64))

    def _next_numbers(self) -> list[np.ndarray]:
        # Two blocks at a time: a few hundred numbers cost NumPy little more than one.
        blocks = np.arange(self._num_blocks, self._num_blocks + 2, dtype=np.uint64)[:, np.newaxis]
        words = philox((blocks, *self._place), self._key)
        self._num_blocks += 2
        return [half[block] for block in (0, 1) for half in (_number(*words[:2]), _number(*words[2:]))]

    def integers(self, low: int, high: int) -> np.ndarray:
        """Return whole numbers from ``low`` on, below ``high``, int64 [N]."""
        return low + (self.random() * (high - low)).astype(np.int64)

    def permutation(self, num: int) -> np.ndarray:
        """Return 0..num-1 in random order for each sample, int64 [N, num]."""
        keys = [self.random() for _ in range(num)]
        return (
            np.stack(keys, axis=1).argsort(axis=1, kind="stable") if keys else np.empty((len(self._place[0]), 0), int)
        )
