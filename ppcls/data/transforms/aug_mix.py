# SPDX-License-Identifier: Apache-2.0
"""AugMix: several chains of operations on one image, blended (Hendrycks et al., ICLR 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np

from ppcls.config.registry import TRANSFORMS, Count, Share, Within
from ppcls.data.rng import SampleRng
from ppcls.data.transforms.augment_ops import Fill, Step, apply_steps
from ppcls.data.transforms.checks import check_share
from ppcls.data.transforms.transform import Transform

BLACK = (0, 0, 0)

_NAMES = (
    *("auto_contrast", "equalize", "posterize", "rotate", "solarize"),
    *("shear_x", "shear_y", "translate_x_pixels", "translate_y_pixels"),
)


class Mixture(NamedTuple):
    """The chains drawn for one image, the weight of each, and the share that their mixture has of the result."""

    chains: list[list[Step]]
    weights: list[float]
    share: float


def mix_chains(image: np.ndarray, mixture: Mixture, fill: Fill) -> np.ndarray:
    """Return the weighted sum of the image after each chain, float64 [H, W, 3]."""
    mixed = np.zeros(image.shape)
    for steps, weight in zip(mixture.chains, mixture.weights):
        mixed += np.float32(weight) * apply_steps(image, steps, fill)
    return mixed


def draw_weights(rng: SampleRng, concentration: float, num: int) -> tuple[list[float], float]:
    """Return the weights of the chains (Dirichlet) and the share of their mixture (beta), as float32 has them."""
    weights = np.float32(rng.dirichlet([concentration] * num)).tolist()
    return weights, float(np.float32(rng.beta(concentration, concentration)))


@TRANSFORMS.register
class AugMix(Transform):
    """Blend the image with a mixture of ``mixture_width`` differently changed ones.

    Args:
        prob: share of the images that are changed.
        aug_prob_coeff: concentration of the weights; the smaller, the more one of them prevails.
        mixture_width: number of chains.
        mixture_depth: operations in a chain; 0 or less draws 1 to 3 for each chain.
        aug_severity: largest level of an operation, up to 10; each draws its level between 0.1 and this.

    Raises:
        ValueError: a number out of its range; when called, an image that is not uint8.

    YAML::

        - AugMix: {prob: 0.5, mixture_width: 3, mixture_depth: -1, aug_severity: 3}
    """

    def __init__(
        self,
        prob: Share = 0.5,
        aug_prob_coeff: float = 0.1,
        mixture_width: Count = 3,
        mixture_depth: int = 1,
        aug_severity: Annotated[float, Within(0.1, 10)] = 1,
    ) -> None:
        check_share("prob", prob)
        if not 0 < aug_prob_coeff < math.inf:
            raise ValueError(f"aug_prob_coeff must be above 0, and finite; got {aug_prob_coeff}")
        if mixture_width < 1:
            raise ValueError(f"mixture_width must be at least 1; got {mixture_width}")
        if not 0.1 <= aug_severity <= 10:
            raise ValueError(f"aug_severity must be within 0.1..10; got {aug_severity}")
        self.prob = prob
        self.aug_prob_coeff = aug_prob_coeff
        self.mixture_width = mixture_width
        self.mixture_depth = mixture_depth
        self.aug_severity = aug_severity

    def draw(self, rng: SampleRng, image: np.ndarray) -> Mixture | None:
        """Return the chains with their weights; None for an image that stays as it is."""
        if rng.random() >= self.prob:
            return None
        weights, share = draw_weights(rng, self.aug_prob_coeff, self.mixture_width)
        chains = []
        for _ in range(self.mixture_width):
            depth = self.mixture_depth if self.mixture_depth > 0 else int(rng.integers(1, 4))
            chains.append([self._draw_step(rng, image.shape) for _ in range(depth)])
        return Mixture(chains, weights, share)

    def _draw_step(self, rng: SampleRng, shape: Sequence[int]) -> Step:
        name = _NAMES[int(rng.integers(0, len(_NAMES)))]
        if name in ("auto_contrast", "equalize"):
            return Step(name)
        tenth = rng.uniform(0.1, self.aug_severity) / 10
        if name == "posterize":
            return Step(name, 4 - int(tenth * 4))
        if name == "solarize":
            return Step(name, 256 - int(tenth * 256))
        size = {
            "rotate": int(tenth * 30),
            "shear_x": tenth * 0.3,
            "shear_y": tenth * 0.3,
            "translate_x_pixels": int(tenth * shape[1] / 3),
            "translate_y_pixels": int(tenth * shape[0] / 3),
        }[name]
        return Step(name, -size if rng.uniform() > 0.5 else size, "bilinear")

    def apply(self, image: np.ndarray, params: Mixture | None) -> np.ndarray:
        """Return the blend, cut off to whole levels."""
        if params is None:
            return image
        share = np.float32(params.share)
        return ((1 - share) * image + share * mix_chains(image, params, BLACK)).astype(np.uint8)
