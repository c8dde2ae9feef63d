# SPDX-License-Identifier: Apache-2.0
"""The augmentation policies of timm."""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image

from ppcls.config.registry import TRANSFORMS, Share
from ppcls.data.rng import SampleRng
from ppcls.data.transforms.aug_mix import Mixture, draw_weights, mix_chains
from ppcls.data.transforms.augment_ops import Fill, Step, apply_steps
from ppcls.data.transforms.checks import check_share
from ppcls.data.transforms.geometry import draw_interpolation
from ppcls.data.transforms.searched_policies import ORIGINAL, V0
from ppcls.data.transforms.timm_config import (
    TOP_LEVEL,
    UNIFORM_STD,
    MixConfig,
    PolicyConfig,
    RandConfig,
    TimmConfig,
    parse_timm_config,
)
from ppcls.data.transforms.timm_levels import MIX_NAMES, MIX_SCALES, MOVES, RAND_WEIGHTS, SCALES, increasing
from ppcls.data.transforms.transform import Transform

Interpolation = Literal["nearest", "bilinear", "bicubic", "random"]


class _Policy:
    """One way to draw steps, with what all of them share: levels that vary, and interpolation."""

    scales = SCALES

    def __init__(self, level_std: float, top_level: float, interpolation: Interpolation) -> None:
        self.level_std = level_std
        self.top_level = top_level
        self.interpolation = interpolation

    def draw(self, rng: SampleRng) -> list[Step] | Mixture:
        raise NotImplementedError

    def apply(self, image: np.ndarray, drawn: list[Step] | Mixture, fill: Fill) -> np.ndarray:
        assert isinstance(drawn, list)
        return apply_steps(image, drawn, fill)

    def draw_steps(self, rng: SampleRng, name: str, level: float, probability: float) -> list[Step]:
        """Return one step, or none where the probability has it so."""
        if probability < 1 and rng.random() >= probability:
            return []
        scale = self.scales[name]
        if self.level_std > UNIFORM_STD:
            level = rng.uniform(0, level)
        elif self.level_std > 0:
            level = rng.normal(level, self.level_std)
        if scale.size is None:
            return [Step(scale.operation)]
        size = scale.size(min(max(level, 0.0), self.top_level) / TOP_LEVEL)
        if scale.signed and rng.random() > 0.5:
            size = -size
        if scale.operation in MOVES:
            return [Step(scale.operation, size, draw_interpolation(rng, self.interpolation))]
        # A factor below 0 would show the negative; it is reached only beyond the usual top level.
        return [Step(scale.operation, max(0.1, scale.around + size) if scale.around else size)]


class _Rand(_Policy):
    def __init__(self, config: RandConfig, interpolation: Interpolation) -> None:
        super().__init__(config.level_std, config.top_level, interpolation)
        self.config = config
        self.names = [increasing(name) if config.is_increasing else name for name in RAND_WEIGHTS]
        num_weighted = sum(weight > 0 for weight in RAND_WEIGHTS.values())
        if config.weight_set is not None and config.num_layers > num_weighted:
            raise ValueError(f"config_str: n must be at most {num_weighted} with w0; got {config.num_layers}")

    def draw(self, rng: SampleRng) -> list[Step]:
        return [
            step
            for name in self._draw_names(rng)
            for step in self.draw_steps(rng, name, self.config.level, self.config.probability)
        ]

    def _draw_names(self, rng: SampleRng) -> list[str]:
        """With weights, no operation comes twice."""
        if self.config.weight_set is None:
            return [self.names[int(rng.integers(0, len(self.names)))] for _ in range(self.config.num_layers)]
        names, weights = list(self.names), list(RAND_WEIGHTS.values())
        drawn = []
        for _ in range(self.config.num_layers):
            index = _weighted_index(weights, rng.random())
            drawn.append(names.pop(index))
            weights.pop(index)
        return drawn


class _Searched(_Policy):
    def __init__(self, config: PolicyConfig, interpolation: Interpolation) -> None:
        super().__init__(config.level_std, config.top_level, interpolation)
        self.pairs = V0 if config.name.startswith("v0") else ORIGINAL
        self.posterize = "posterize_original" if config.name == "original" else "posterize"
        if config.name.endswith("r"):
            self.posterize = "posterize_increasing"

    def draw(self, rng: SampleRng) -> list[Step]:
        steps = []
        for name, probability, level in self.pairs[int(rng.integers(0, len(self.pairs)))]:
            name = self.posterize if name == "posterize" else name
            steps += self.draw_steps(rng, name, level, probability)
        return steps


class _Mix(_Policy):
    scales = MIX_SCALES

    def __init__(self, config: MixConfig, interpolation: Interpolation) -> None:
        super().__init__(config.level_std, config.top_level, interpolation)
        self.config = config

    def draw(self, rng: SampleRng) -> Mixture:
        weights, share = draw_weights(rng, self.config.concentration, self.config.width)
        chains = []
        for _ in weights:
            depth = self.config.depth or int(rng.integers(1, 4))
            names = [MIX_NAMES[int(rng.integers(0, len(MIX_NAMES)))] for _ in range(depth)]
            chains.append([step for name in names for step in self.draw_steps(rng, name, self.config.level, 1.0)])
        return Mixture(chains, weights, share)

    def apply(self, image: np.ndarray, drawn: list[Step] | Mixture, fill: Fill) -> np.ndarray:
        assert isinstance(drawn, Mixture)
        if not self.config.is_stepwise:
            # PaddleClas: width and height are swapped here, so that only square images pass.
            mixed = np.clip(mix_chains(image, drawn, fill), 0, 255).astype(np.uint8)
            return np.asarray(Image.blend(Image.fromarray(image), Image.fromarray(mixed), drawn.share))
        shares: list[float] = []
        left = 1.0
        for weight in reversed(drawn.weights):
            shares.append(weight * drawn.share / left if left > 0 else 0.0)
            left *= 1 - shares[-1]
        changed = [Image.fromarray(apply_steps(image, steps, fill)) for steps in drawn.chains]
        blend = Image.fromarray(image)
        for one, share in zip(changed, reversed(shares)):
            blend = Image.blend(blend, one, share)
        return np.asarray(blend)


def _policy(config: TimmConfig, interpolation: Interpolation) -> _Policy:
    if isinstance(config, RandConfig):
        return _Rand(config, interpolation)
    return _Mix(config, interpolation) if isinstance(config, MixConfig) else _Searched(config, interpolation)


def _weighted_index(weights: list[float], number: float) -> int:
    """The index that a number in 0..1 falls on when each has a stretch of its weight; never one of weight 0."""
    left = number * sum(weights)
    index = 0
    for candidate, weight in enumerate(weights):
        if weight > 0:
            index = candidate
            if left < weight:
                break
            left -= weight
    return index


@TRANSFORMS.register
class TimmAutoAugment(Transform):
    """Augment by one of timm's policies, written as one line.

    The line is a kind and, behind dashes, keys with numbers. ``rand`` draws operations of 15 kinds: ``m`` level of
    the operations (10), ``n`` how many (2), ``p`` probability that one is done (0.5), ``mstd`` standard deviation of
    the level (0; above 100 it is drawn uniformly up to m), ``mmax`` largest level (10), ``inc`` 1 for operations
    that all get stronger with the level (0), ``w`` 0 to draw moves more often than colours. ``original``,
    ``originalr``, ``v0`` and ``v0r`` are AutoAugment's pairs of operations; they take ``mstd`` and ``mmax``.
    ``augmix`` blends chains of operations: ``m`` (3), ``w`` chains (3), ``d`` operations in each (1 to 3 are drawn),
    ``a`` concentration of the weights (1), ``b`` 1 to blend stepwise (0), ``mstd``, ``mmax``.

    Args:
        prob: share of the images that are changed.
        config_str: the policy.
        interpolation: how a moved image is sampled; ``random`` draws bilinear or bicubic for each move.
        img_size: accepted for PaddleClas's files; all moves are relative to the image.
        mean: red, green and blue, 0..1, of what a moved image leaves empty.

    Raises:
        ValueError: a line that cannot be read, or numbers out of range; when called, an image that is not uint8.

    YAML::

        - TimmAutoAugment: {prob: 0.5, config_str: rand-m9-mstd0.5-inc1, interpolation: bicubic}
    """

    def __init__(
        self,
        prob: Share = 1.0,
        config_str: str = "rand-m9-mstd0.5-inc1",
        interpolation: Interpolation = "bicubic",
        img_size: int | list[int] = 224,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
    ) -> None:
        check_share("prob", prob)
        if len(mean) != 3 or not all(0 <= value <= 1 for value in mean):
            raise ValueError(f"mean must be red, green and blue within 0..1; got {list(mean)}")
        self.prob = prob
        self.config_str = config_str
        self.interpolation = interpolation
        self.img_size = img_size
        self.mean = mean
        red, green, blue = (round(255 * value) for value in mean)
        self._fill = (red, green, blue)
        self._policy = _policy(parse_timm_config(config_str), interpolation)

    def draw(self, rng: SampleRng, image: np.ndarray) -> list[Step] | Mixture | None:
        """Return the operations, or augmix's chains of them; None for an image that stays as it is."""
        return self._policy.draw(rng) if rng.random() < self.prob else None

    def apply(self, image: np.ndarray, params: list[Step] | Mixture | None) -> np.ndarray:
        """Return the image after the operations."""
        return image if params is None else self._policy.apply(image, params, self._fill)
