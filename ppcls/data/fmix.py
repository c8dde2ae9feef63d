# SPDX-License-Identifier: Apache-2.0
"""FMix: samples mixed by a random blob in place of a box."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ppcls.config.registry import BATCH_OPS, Share
from ppcls.data.batch_ops import BatchOp, positive
from ppcls.data.mixing import Mix
from ppcls.data.rng import SampleRng


@BATCH_OPS.register
class FmixOperator(BatchOp):
    """Put blobs of another sample's pixels into each, the same blobs for all (Harris et al., arXiv:2002.12047).

    The blobs are where a random picture of low frequencies is darkest. The labels are mixed in the shares of the
    pixels.

    Args:
        class_num: number of classes of the model.
        alpha: the share that stays comes from Beta(alpha, alpha).
        decay_power: how fast the frequencies of the picture fade; the larger, the smoother the blobs.
        max_soft: part of the pixels on either side of the edge that are blended; at most 0.5 has an effect.
        reformulate: draw the share from Beta(alpha + 1, alpha), as the paper does for unmixed labels.

    Raises:
        ValueError: ``alpha`` not above 0.

    YAML::

        - FmixOperator: {alpha: 1, decay_power: 3}
    """

    def __init__(
        self,
        class_num: int,
        alpha: float = 1,
        decay_power: float = 3,
        max_soft: Share = 0.0,
        reformulate: bool = False,
    ) -> None:
        super().__init__(class_num)
        self.alpha = positive("alpha", alpha)
        self.decay_power = decay_power
        self.max_soft = max_soft
        self.reformulate = reformulate

    def draw(self, rng: SampleRng, shape: Sequence[int]) -> Mix:
        """Return the partners and the mask."""
        num_samples, _, height, width = shape
        partners = rng.permutation(num_samples)
        share = rng.beta(self.alpha + self.reformulate, self.alpha)
        picture = draw_low_frequencies(rng, height, width, self.decay_power)
        num_kept = share * picture.size
        mask = brightest(picture, math.ceil(num_kept) if rng.random() > 0.5 else math.floor(num_kept), self.max_soft)
        return Mix(partners, [], [], [float(mask.mean())], mask)


def draw_low_frequencies(rng: SampleRng, height: int, width: int, decay_power: float) -> np.ndarray:
    """Return a random picture, float64 [height, width], whose frequencies f fade as ``f ** -decay_power``."""
    columns = np.fft.fftfreq(width)[: width // 2 + 1 + width % 2]
    # PaddleClas: as in the authors' code, the real part is the first row of the spectrum and the imaginary part its
    # second, in place of two numbers for each frequency; the results of the paper were made with these masks.
    frequencies = np.hypot(columns, np.fft.fftfreq(height)[:2, None])
    numbers = np.array([rng.normal() for _ in range(2 * frequencies.size)]).reshape(*frequencies.shape, 2)
    real, imaginary = numbers / np.maximum(frequencies, 1 / max(height, width))[..., None] ** decay_power
    return np.fft.irfftn(real + 1j * imaginary, (height, width), axes=(0, 1))


def brightest(picture: np.ndarray, num_kept: int, max_soft: float) -> np.ndarray:
    """Return a mask, float32: 1 for so many of the brightest pixels, 0 for the others.

    Args:
        picture: [H, W].
        num_kept: how many.
        max_soft: part of all pixels, on either side of the edge, over which 1 falls to 0.
    """
    order = np.argsort(picture, axis=None, kind="stable")[::-1]
    share = num_kept / picture.size
    num_soft = int(picture.size * min(max_soft, share, 1 - share))
    values = np.zeros(picture.size, np.float32)
    values[: num_kept - num_soft] = 1
    values[num_kept - num_soft : num_kept + num_soft] = np.linspace(1, 0, 2 * num_soft)
    mask = np.empty_like(values)
    mask[order] = values
    return mask.reshape(picture.shape)
