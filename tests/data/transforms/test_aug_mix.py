# SPDX-License-Identifier: Apache-2.0
"""AugMix: what its chains draw, and that the blend is their weighted sum."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from ppcls.data.rng import SampleRng
from ppcls.data.transforms import AugMix
from ppcls.data.transforms.aug_mix import Mixture
from ppcls.data.transforms.augment_ops import Step, apply_steps

IMAGE = np.random.RandomState(7).randint(0, 256, (37, 53, 3)).astype("uint8")


def drawn(mix, num=2000):
    return [mix.draw(SampleRng(0, 1, index), IMAGE) for index in range(num)]


def steps_of(mix, num=2000):
    return [step for mixture in drawn(mix, num) for chain in mixture.chains for step in chain]


def assert_count(count, num, probability):
    """Within five standard deviations of the binomial distribution."""
    assert abs(count - num * probability) < 5 * math.sqrt(num * probability * (1 - probability))


def test_prob_is_the_share_of_changed_images():
    assert_count(sum(mixture is not None for mixture in drawn(AugMix(prob=0.3))), 2000, 0.3)
    assert AugMix().apply(IMAGE, None) is IMAGE
    assert not any(drawn(AugMix(prob=0), 100)) and all(drawn(AugMix(prob=1), 100))


@pytest.mark.parametrize(("depth", "lengths"), [(1, {1}), (3, {3}), (0, {1, 2, 3}), (-1, {1, 2, 3})])
def test_chains_are_as_many_and_as_long_as_the_yaml_says(depth, lengths):
    mixtures = drawn(AugMix(prob=1, mixture_width=4, mixture_depth=depth))
    assert {len(mixture.chains) for mixture in mixtures} == {len(mixture.weights) for mixture in mixtures} == {4}
    counts = Counter(len(chain) for mixture in mixtures for chain in mixture.chains)
    assert counts.keys() == lengths
    for length in lengths - {depth}:
        assert_count(counts[length], 8000, 1 / 3)


@pytest.mark.parametrize("concentration", [0.1, 1.0, 5.0])
def test_weights_are_of_the_dirichlet_and_the_share_of_the_beta_distribution(concentration):
    mixtures = drawn(AugMix(prob=1, aug_prob_coeff=concentration))
    weights = np.array([mixture.weights for mixture in mixtures])
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    variance = 1 / 3 * 2 / 3 / (3 * concentration + 1)
    assert np.abs(weights.mean(axis=0) - 1 / 3).max() < 5 * math.sqrt(variance / 2000)
    assert weights.var(axis=0) == pytest.approx(variance, rel=0.15)
    shares = np.array([mixture.share for mixture in mixtures])
    assert abs(shares.mean() - 0.5) < 5 * math.sqrt(0.25 / 2000)
    assert shares.var() == pytest.approx(0.25 / (2 * concentration + 1), rel=0.15)


@pytest.mark.parametrize("severity", [1, 3, 10])
def test_arguments_are_spread_up_to_the_severity(severity):
    steps = steps_of(AugMix(prob=1, mixture_width=6, aug_severity=severity), 3000)
    counts = Counter(step.name for step in steps)
    assert len(counts) == 9
    for count in counts.values():
        assert_count(count, 18000, 1 / 9)
    for name, largest, whole in (
        ("rotate", 3 * severity, True),
        ("shear_x", 0.03 * severity, False),
        ("shear_y", 0.03 * severity, False),
        ("translate_x_pixels", 53 / 30 * severity, True),
        ("translate_y_pixels", 37 / 30 * severity, True),
    ):
        sizes = np.array([step.argument for step in steps if step.name == name])
        assert np.abs(sizes).max() <= largest and np.abs(sizes).max() > 0.95 * largest - whole
        assert (sizes == sizes.astype(int)).all() == whole
        assert {step.interpolation for step in steps if step.name == name} == {"bilinear"}
        if not whole:
            assert_count((sizes < 0).sum(), len(sizes), 0.5)
            assert np.abs(sizes).min() >= 0.003
    bits = {step.argument for step in steps if step.name == "posterize"}
    assert bits == set(range(4 - math.ceil(0.4 * severity) + 1, 5))
    thresholds = [step.argument for step in steps if step.name == "solarize"]
    assert min(thresholds) >= 256 - 25.6 * severity and max(thresholds) <= 254


def test_the_blend_is_the_weighted_sum():
    chains = [[Step("invert")], [Step("posterize", 2), Step("rotate", 9, "bilinear")], [Step("solarize", 99)]]
    mixture = Mixture(chains, [0.5, 0.2, 0.3], 0.7)
    expected = 0.3 * IMAGE.astype("float64")
    for chain, weight in zip(chains, mixture.weights):
        expected += 0.7 * weight * apply_steps(IMAGE, chain, (0, 0, 0)).astype("float64")
    mixed = AugMix().apply(IMAGE, mixture)
    assert mixed.dtype == np.uint8
    assert (mixed <= expected + 1e-3).all() and (expected - mixed).max() < 1 + 1e-3


def test_draws_repeat_and_apply_needs_no_randomness():
    mix = AugMix(prob=0.8, mixture_depth=-1, aug_severity=5)
    before = IMAGE.copy()
    for index in range(40):
        mixture = mix.draw(SampleRng(3, 2, index), IMAGE)
        assert mixture == mix.draw(SampleRng(3, 2, index), IMAGE)
        np.testing.assert_array_equal(mix.apply(IMAGE, mixture), mix(IMAGE, SampleRng(3, 2, index)))
    np.testing.assert_array_equal(IMAGE, before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prob": -0.1}, "prob must be within 0..1; got -0.1"),
        ({"aug_prob_coeff": 0}, "aug_prob_coeff must be above 0, and finite; got 0"),
        ({"aug_prob_coeff": float("inf")}, "aug_prob_coeff must be above 0, and finite; got inf"),
        ({"mixture_width": 0}, "mixture_width must be at least 1; got 0"),
        ({"aug_severity": 11}, "aug_severity must be within 0.1..10; got 11"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AugMix(**settings)


def test_normalized_images_are_refused():
    with pytest.raises(ValueError, match="augmentation policies need uint8 images"):
        AugMix(prob=1)(IMAGE.astype("float32"), SampleRng(0, 1, 0))
