# SPDX-License-Identifier: Apache-2.0
"""timm's policies: each key of their line does what it says, and other lines are refused."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from ppcls.data.rng import SampleRng
from ppcls.data.transforms import RawTimmAutoAugment, TimmAutoAugment
from ppcls.data.transforms.aug_mix import Mixture
from ppcls.data.transforms.augment_ops import Step, apply_steps
from ppcls.data.transforms.searched_policies import ORIGINAL, V0
from ppcls.data.transforms.timm_config import MixConfig, PolicyConfig, RandConfig, parse_timm_config
from ppcls.data.transforms.timm_levels import MIX_SCALES, SCALES, increasing

IMAGE = np.random.RandomState(7).randint(0, 256, (37, 53, 3)).astype("uint8")
BARE = {"auto_contrast", "equalize", "invert"}
FACTORS = {"color", "contrast", "sharpness", "brightness"}
MOVES = {"rotate", "shear_x", "shear_y", "translate_x", "translate_y"}
MEAN = (124, 116, 104)


def drawn(line, num=3000, **settings):
    policy = TimmAutoAugment(config_str=line, **settings)
    return [policy.draw(SampleRng(0, 1, index), IMAGE) for index in range(num)]


def steps_of(line, num=3000, **settings):
    return [step for steps in drawn(line, num, **settings) for step in steps]


def arguments(steps, name):
    return sorted({step.argument for step in steps if step.name == name})


def assert_count(count, num, probability):
    """Within five standard deviations of the binomial distribution."""
    assert abs(count - num * probability) < 5 * math.sqrt(num * probability * (1 - probability)) + 1e-9


@pytest.mark.parametrize(
    ("line", "config"),
    [
        ("rand", RandConfig(level=10, num_layers=2, probability=0.5, level_std=0, top_level=10)),
        ("rand-m9-mstd0.5-inc1", RandConfig(level=9, level_std=0.5, is_increasing=True)),
        ("rand-m9-inc1-mstd1.0", RandConfig(level=9, level_std=1.0, is_increasing=True)),
        ("rand-m7.5-n3-p1.0-inc0", RandConfig(level=7.5, num_layers=3, probability=1.0)),
        ("rand-mstd1-w0", RandConfig(level_std=1, weight_set=0)),
        ("rand-m12-mmax15", RandConfig(level=12, top_level=15)),
        ("rand-m9-mstdinf", RandConfig(level=9, level_std=math.inf)),
        ("original", PolicyConfig("original")),
        ("originalr", PolicyConfig("originalr")),
        ("v0-mstd0.5", PolicyConfig("v0", level_std=0.5)),
        ("v0r-mmax8", PolicyConfig("v0r", top_level=8)),
        ("augmix", MixConfig(level=3, width=3, depth=0, concentration=1.0)),
        ("augmix-m5-w4-d2", MixConfig(level=5, width=4, depth=2)),
        ("augmix-a0.5-b1-mstd1", MixConfig(concentration=0.5, is_stepwise=True, level_std=1)),
    ],
)
def test_a_line_means(line, config):
    assert parse_timm_config(line) == config


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("rnad-m9", "config_str must start with rand, augmix, original, originalr, v0, v0r; got 'rnad-m9'"),
        ("auto-v0", "config_str must start with rand, .*; got 'auto-v0'"),
        ("", "config_str must start with rand, .*; got ''"),
        ("rand-x5", "config_str 'rand-x5': 'x5' means nothing; rand takes m, n, w, p, inc, mstd, mmax, each with a"),
        ("rand-m", "'m' means nothing; rand takes"),
        ("rand--m9", "'' means nothing; rand takes"),
        ("rand-M9", "'M9' means nothing; rand takes"),
        ("rand-m9e1", "'m9e1' means nothing; rand takes"),
        ("rand-d2", "'d2' means nothing; rand takes"),
        ("augmix-n2", "'n2' means nothing; augmix takes m, w, d, a, b, mstd, mmax, each with a number"),
        ("v0-m9", "'m9' means nothing; v0 takes mstd, mmax, each with a number"),
        ("rand-m9-m8", "config_str 'rand-m9-m8': m is given twice"),
        ("rand-n0", "config_str 'rand-n0': n takes a whole number within 1..inf; got 0"),
        ("rand-n2.5", "n takes a whole number within 1..inf; got 2.5"),
        ("rand-ninf", "n takes a whole number within 1..inf; got inf"),
        ("rand-w1", "w takes a whole number within 0..0; got 1"),
        ("rand-p1.5", "p takes a number within 0..1; got 1.5"),
        ("rand-inc2", "inc takes a whole number within 0..1; got 2"),
        ("augmix-w0", "w takes a whole number within 1..inf; got 0"),
        ("augmix-a0", "a takes a number within 0.01..inf; got 0"),
        ("rand-m12", "levels end at 10, below m12; write m10, or add mmax12"),
        ("rand-n14-w0", "n must be at most 13 with w0; got 14"),
    ],
)
def test_other_lines_are_refused_in_one_line(line, message):
    with pytest.raises(ValueError, match=message) as error:
        TimmAutoAugment(config_str=line)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("level", [0, 4, 9, 10])
def test_arguments_follow_the_formulas(level):
    share = level / 10
    steps = steps_of(f"rand-m{level}-n3-p1")
    factors = {name: [1.8 * share + 0.1] for name in FACTORS}
    moves = {"rotate": 30 * share, "shear_x": 0.3 * share, "shear_y": 0.3 * share}
    moves |= {"translate_x": 0.45 * share, "translate_y": 0.45 * share}
    whole = {"posterize": 4 * share, "solarize": 256 * share, "solarize_add": 110 * share}
    assert {step.name for step in steps} == BARE | factors.keys() | moves.keys() | whole.keys()
    for name in BARE:
        assert {step.argument for step in steps if step.name == name} == {None}
    for name, expected in factors.items():
        assert arguments(steps, name) == pytest.approx(expected)
    for name, size in moves.items():
        assert arguments(steps, name) == pytest.approx(sorted({-size, size}))
    for name, size in whole.items():
        assert arguments(steps, name) == [math.floor(size)]


@pytest.mark.parametrize("level", [0, 4, 9, 10])
def test_with_inc_everything_gets_stronger_with_the_level(level):
    share = level / 10
    steps = steps_of(f"rand-m{level}-n3-p1-inc1")
    for name in FACTORS:
        assert arguments(steps, name) == pytest.approx(sorted({1 - 0.9 * share, 1 + 0.9 * share}))
    assert arguments(steps, "posterize") == [4 - math.floor(4 * share)]
    assert arguments(steps, "solarize") == [256 - math.floor(256 * share)]
    assert arguments(steps, "solarize_add") == [math.floor(110 * share)]


def test_posterize_of_the_original_policy_keeps_4_to_8_bits():
    assert [SCALES["posterize_original"].size(level / 10) for level in range(11)] == [4, 4, 4, 5, 5, 6, 6, 6, 7, 7, 8]


def test_n_and_p_are_how_many_are_drawn_and_done():
    lengths = Counter(map(len, drawn("rand-m9-n3-p0.3")))
    for length in range(4):
        assert_count(lengths[length], 3000, math.comb(3, length) * 0.3**length * 0.7 ** (3 - length))
    assert {len(steps) for steps in drawn("rand-m9-n4-p1")} == {4}
    assert {len(steps) for steps in drawn("rand-p0")} == {0}
    lengths = Counter(map(len, drawn("rand")))
    for length, probability in ((0, 0.25), (1, 0.5), (2, 0.25)):
        assert_count(lengths[length], 3000, probability)


def test_all_operations_are_as_likely():
    counts = Counter(step.name for step in steps_of("rand-n3-p1"))
    assert len(counts) == 15
    for count in counts.values():
        assert_count(count, 9000, 1 / 15)


def test_w0_draws_by_weight_and_never_twice():
    lists = drawn("rand-n1-p1-w0-inc1", 6000)
    counts = Counter(steps[0].name for steps in lists)
    weights = {"rotate": 0.3, "shear_x": 0.2, "shear_y": 0.2, "translate_x": 0.1, "translate_y": 0.1}
    weights |= {"color": 0.025, "sharpness": 0.025, "auto_contrast": 0.025}
    weights |= dict.fromkeys(("solarize", "solarize_add", "contrast", "brightness", "equalize"), 0.005)
    assert counts.keys() == weights.keys()
    for name, weight in weights.items():
        assert_count(counts[name], 6000, weight / sum(weights.values()))
    for steps in drawn("rand-n13-p1-w0", 200):
        assert len({step.name for step in steps}) == 13


def test_mstd_spreads_the_level_within_0_and_mmax():
    angles = np.abs([step.argument for step in steps_of("rand-m5-n3-p1-mstd1", 8000) if step.name == "rotate"]) / 3
    assert abs(angles.mean() - 5) < 5 / math.sqrt(len(angles)) and abs(angles.std() - 1) < 0.1
    for line, top in (("rand-m9-n3-p1-mstd3", 10), ("rand-m9-n3-p1-mstd3-mmax12", 12), ("rand-m5-mstd9-mmax6", 6)):
        levels = np.abs([step.argument for step in steps_of(line) if step.name == "rotate"]) / 3
        assert levels.max() == pytest.approx(top) and levels.min() < top / 2


@pytest.mark.parametrize("line", ["rand-m8-n3-p1-mstdinf", "rand-m8-n3-p1-mstd101"])
def test_a_large_mstd_draws_the_level_uniformly_up_to_m(line):
    levels = np.abs([step.argument for step in steps_of(line, 8000) if step.name == "rotate"]) / 3
    assert 0 <= levels.min() < 0.1 and 7.9 < levels.max() <= 8
    assert abs(levels.mean() - 4) < 5 * 8 / math.sqrt(12 * len(levels))


def test_beyond_the_usual_top_level_no_argument_leaves_its_range():
    for step in steps_of("rand-m40-mmax40-n3-p1-inc1", 1000) + steps_of("rand-m40-mmax40-n3-p1", 1000):
        if step.name in FACTORS:
            assert step.argument >= 0.1
        if step.name in ("solarize", "solarize_add"):
            assert 0 <= step.argument <= 256
        apply_steps(IMAGE, [step], MEAN)


@pytest.mark.parametrize(("line", "pairs"), [("original", ORIGINAL), ("originalr", ORIGINAL), ("v0", V0), ("v0r", V0)])
def test_searched_policies_draw_their_pairs(line, pairs):
    bits = {"original": lambda level: 4 + int(0.4 * level), "v0": lambda level: int(0.4 * level)}
    sizes = {
        **dict.fromkeys(BARE, lambda level: (None,)),
        "posterize": lambda level: (bits.get(line, lambda level: 4 - int(0.4 * level))(level),),
        "solarize": lambda level: (int(25.6 * level),),
        "solarize_add": lambda level: (int(11 * level),),
        **dict.fromkeys(FACTORS, lambda level: (level / 10 * 1.8 + 0.1,)),
        "rotate": lambda level: (3 * level, -3 * level),
        **dict.fromkeys(("shear_x", "shear_y"), lambda level: (level / 10 * 0.3, -level / 10 * 0.3)),
        "translate_y": lambda level: (level / 10 * 0.45, -level / 10 * 0.45),
    }
    possible = set()
    for pair in pairs:
        first, second = ({(name, size) for size in sizes[name](level)} for name, _, level in pair)
        possible |= {(one,) for one in first | second} | {(one, other) for one in first for other in second}
    found = {tuple((step.name, step.argument) for step in steps) for steps in drawn(line, 4000)} - {()}
    assert found <= possible
    expected = Counter()
    for pair in pairs:
        for name, probability, _ in pair:
            expected[name] += probability / 25
    counts = Counter(step.name for step in steps_of(line, 6000))
    for name, mean in expected.items():
        assert abs(counts[name] - 6000 * mean) < 5 * math.sqrt(6000 * 2 * mean), name


def test_prob_is_the_share_of_changed_images():
    lists = drawn("rand-n1-p1", prob=0.3)
    assert_count(sum(steps is not None for steps in lists), 3000, 0.3)
    assert TimmAutoAugment(prob=0.3).apply(IMAGE, None) is IMAGE


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_moves_are_interpolated_as_the_yaml_says(interpolation):
    steps = steps_of("rand-n3-p1", 300, interpolation=interpolation)
    assert {step.interpolation for step in steps if step.name in MOVES} == {interpolation}


def test_random_interpolation_is_one_of_two():
    found = Counter(s.interpolation for s in steps_of("rand-n3-p1", interpolation="random") if s.name in MOVES)
    assert found.keys() == {"bilinear", "bicubic"}
    assert_count(found["bicubic"], sum(found.values()), 0.5)


def test_the_mean_is_the_fill():
    step = Step("translate_x", 0.5, "nearest")
    np.testing.assert_array_equal(TimmAutoAugment().apply(IMAGE, [step]), apply_steps(IMAGE, [step], MEAN))
    filled = TimmAutoAugment(mean=(1.0, 0.0, 0.5)).apply(IMAGE, [step])
    assert (filled[:, -26:] == (255, 0, 128)).all()


def test_augmix_draws_chains_and_weights():
    mixtures = drawn("augmix-m5-w4", 2000)
    assert all(isinstance(mixture, Mixture) for mixture in mixtures)
    weights = np.array([mixture.weights for mixture in mixtures])
    assert weights.shape == (2000, 4)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    # Dirichlet(1, 1, 1, 1): a mean of 1/4 and a variance of 3/80; beta(1, 1) is uniform.
    assert np.abs(weights.mean(axis=0) - 0.25).max() < 5 * math.sqrt(3 / 80 / 2000)
    shares = np.array([mixture.share for mixture in mixtures])
    assert abs(shares.mean() - 0.5) < 5 / math.sqrt(12 * 2000) and shares.min() < 0.01 and shares.max() > 0.99
    depths = Counter(len(chain) for mixture in mixtures for chain in mixture.chains)
    for depth in (1, 2, 3):
        assert_count(depths[depth], 8000, 1 / 3)
    assert {len(chain) for mixture in drawn("augmix-d2", 100) for chain in mixture.chains} == {2}


def test_augmix_moves_less_and_always_does_what_it_draws():
    steps = [step for mixture in drawn("augmix-m5-d3", 1000) for chain in mixture.chains for step in chain]
    assert arguments(steps, "translate_x") == pytest.approx([-0.15, 0.15])
    assert arguments(steps, "translate_y") == pytest.approx([-0.15, 0.15])
    assert arguments(steps, "posterize") == [2] and arguments(steps, "solarize") == [128]
    assert {step.name for step in steps} == FACTORS | MOVES | {"auto_contrast", "equalize", "posterize", "solarize"}
    assert len(steps) == 9000
    assert MIX_SCALES.keys() == SCALES.keys()


MIXTURE = Mixture(
    [[Step("invert")], [Step("posterize", 2), Step("shear_x", 0.1, "bilinear")], [Step("solarize", 99)]],
    [0.5, 0.2, 0.3],
    0.7,
)


@pytest.mark.parametrize(("line", "tolerance"), [("augmix", 2), ("augmix-b1", 4)])
def test_augmix_is_the_weighted_sum(line, tolerance):
    expected = 0.3 * IMAGE.astype("float64")
    for chain, weight in zip(MIXTURE.chains, MIXTURE.weights):
        expected += 0.7 * weight * apply_steps(IMAGE, chain, MEAN).astype("float64")
    mixed = TimmAutoAugment(config_str=line).apply(IMAGE, MIXTURE)
    assert mixed.dtype == np.uint8 and mixed.shape == IMAGE.shape
    # Each blend cuts off what is behind the point.
    assert (mixed <= expected + 1e-3).all() and (expected - mixed).max() < tolerance


def test_augmix_of_images_that_are_not_square_is_that_of_square_ones_where_they_agree():
    mixture = Mixture([[Step("invert")], [Step("solarize", 99)]], [0.5, 0.5], 0.6)
    policy = TimmAutoAugment(config_str="augmix")
    np.testing.assert_array_equal(policy.apply(IMAGE, mixture)[:, :37], policy.apply(IMAGE[:, :37], mixture))


@pytest.mark.parametrize("line", ["rand-m9-mstd0.5-inc1", "rand-m9-w0", "v0r-mstd1", "augmix-m9-mstd1", "augmix-b1"])
def test_draws_repeat_and_apply_needs_no_randomness(line):
    policy = TimmAutoAugment(prob=0.8, config_str=line)
    before = IMAGE.copy()
    for index in range(40):
        params = policy.draw(SampleRng(3, 2, index), IMAGE)
        assert params == policy.draw(SampleRng(3, 2, index), IMAGE)
        changed = policy.apply(IMAGE, params)
        np.testing.assert_array_equal(changed, policy.apply(IMAGE, params))
        np.testing.assert_array_equal(changed, policy(IMAGE, SampleRng(3, 2, index)))
        assert changed.shape == IMAGE.shape and changed.dtype == np.uint8
    np.testing.assert_array_equal(IMAGE, before)


def test_the_raw_name_is_the_policy_for_all_images():
    raw, policy = RawTimmAutoAugment("rand-m5-n3"), TimmAutoAugment(1.0, "rand-m5-n3")
    for index in range(50):
        assert raw.draw(SampleRng(0, 1, index), IMAGE) == policy.draw(SampleRng(0, 1, index), IMAGE)


def test_increasing_kinds_exist_for_what_has_two():
    assert {name for name in SCALES if increasing(name) != name} == FACTORS | {"posterize", "solarize"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prob": 1.5}, "prob must be within 0..1; got 1.5"),
        ({"mean": (0.5, 0.5)}, r"mean must be red, green and blue within 0..1; got \[0.5, 0.5\]"),
        ({"mean": (124, 116, 104)}, "mean must be red, green and blue within 0..1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TimmAutoAugment(**settings)


@pytest.mark.parametrize("line", ["rand-p1", "augmix", "augmix-b1", "v0"])
def test_normalized_images_are_refused(line):
    policy = TimmAutoAugment(config_str=line)
    with pytest.raises(ValueError, match="augmentation policies need uint8 images"):
        policy(IMAGE.astype("float32"), SampleRng(0, 1, 0))


def test_blends_are_those_of_pillow():
    mixture = Mixture([[Step("invert")]], [1.0], 0.4)
    expected = Image.blend(Image.fromarray(IMAGE), Image.fromarray(255 - IMAGE), 0.4)
    for line in ("augmix", "augmix-b1"):
        np.testing.assert_array_equal(TimmAutoAugment(config_str=line).apply(IMAGE, mixture), np.asarray(expected))
