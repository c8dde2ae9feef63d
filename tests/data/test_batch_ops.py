# SPDX-License-Identifier: Apache-2.0
"""Mixup and its like: PaddleClas's numbers for its own random numbers, slow references, and how often what is drawn."""

from __future__ import annotations

import hashlib
import json
import math
import random

import numpy as np
import paddle
import pytest

from ppcls.config.registry import BATCH_OPS, Call
from ppcls.data import BatchOps, CutmixOperator, FmixOperator, MixupCutmixHybrid, MixupOperator, OpSampler, SampleRng
from ppcls.data.batch_ops import SampledOp, batch_rng
from ppcls.data.fmix import brightest, draw_low_frequencies
from ppcls.data.mixing import Box, Mix, draw_box, draw_box_within, mixed, soft_labels

IMAGES = np.random.RandomState(5).standard_normal((5, 3, 8, 12)).astype("float32")
LABELS = np.array([3, 0, 2, 2, 1])
NUM_DRAWS = 2000


class RecordedNumbers:
    """The random numbers of PaddleClas's process, which come from NumPy's and from Python's global generators."""

    def __init__(self, seed: int, is_python: bool) -> None:
        self.numbers = np.random.RandomState(seed)
        self.python = random.Random(seed)
        self.is_python = is_python
        self.beta = self.numbers.beta
        self.normal = self.numbers.standard_normal
        self.integers = self.numbers.randint
        self.permutation = self.numbers.permutation

    def random(self) -> float:
        return self.python.random() if self.is_python else self.numbers.random_sample()


def op_sampler(class_num: int = 5, **ops: dict) -> OpSampler:
    parts = [
        SampledOp(Call(BATCH_OPS[name], {key: value for key, value in params.items() if key != "prob"}), params["prob"])
        for name, params in ops.items()
    ]
    return OpSampler(parts, class_num)


def run(op, rng, images: np.ndarray = IMAGES, labels: np.ndarray = LABELS) -> tuple[np.ndarray, np.ndarray]:
    new_images, soft = op(paddle.to_tensor(images), paddle.to_tensor(labels), rng)
    assert new_images.dtype == soft.dtype == paddle.float32
    return new_images.numpy(), soft.numpy()


def test_images_are_paddleclas_s_to_the_bit_for_its_random_numbers(reference):
    cases = json.loads((reference / "transform" / "batch_ops.json").read_text())["cases"]
    assert len(cases) > 30
    for case in cases:
        name, params, expected = case["op"], case["params"], case["images_out"]
        op = op_sampler(**params) if name == "OpSampler" else BATCH_OPS[name](class_num=case["class_num"], **params)
        images = np.random.RandomState(91).standard_normal((4, 3, 16, 20)).astype("float32")
        rng = RecordedNumbers(case["seed"], is_python=name in ("OpSampler", "FmixOperator"))
        new_images, soft = run(op, rng, images, np.array(case["labels"]))
        digest = hashlib.sha256(new_images.astype(expected["dtype"]).tobytes()).hexdigest()
        assert digest == expected["sha256"], (name, params)
        # Fmix: PaddleClas gives labels the share that was drawn, we the share that whole pixels make of it.
        tolerance = 1 / (16 * 20) if name == "FmixOperator" else 2e-7
        np.testing.assert_allclose(soft, case["labels_out"], rtol=0, atol=tolerance, err_msg=f"{name} {params}")


def slowly_mixed(images, labels, partners, shares, boxes, label_shares, class_num):
    """Pixel by pixel, from the definition."""
    new_images, soft = images.copy(), np.zeros((len(images), class_num))
    for i, j in enumerate(partners):
        for row in range(images.shape[2]):
            for column in range(images.shape[3]):
                top, bottom, left, right = boxes[i]
                share = 0.0 if top <= row < bottom and left <= column < right else shares[i]
                own, other = images[i, :, row, column], images[j, :, row, column]
                new_images[i, :, row, column] = share * own + (1 - share) * other
        soft[i, labels[i]] += label_shares[i]
        soft[i, labels[j]] += 1 - label_shares[i]
    return new_images, soft


@pytest.mark.parametrize("is_alike", [True, False])
def test_mixing_equals_a_loop_over_pixels(is_alike):
    rng = np.random.default_rng(1)
    for _ in range(20):
        partners = rng.permutation(5)
        num = 1 if is_alike else 5
        shares = rng.random(num).tolist()
        sides = [sorted(rng.integers(0, 9, 2)) + sorted(rng.integers(0, 13, 2)) for _ in range(num)]
        boxes = [Box(*map(int, side)) for side in sides]
        label_shares = rng.random(num).tolist()
        new_images, soft = mixed(
            paddle.to_tensor(IMAGES),
            soft_labels(paddle.to_tensor(LABELS), 4),
            Mix(partners, shares, boxes, label_shares),
        )
        times = 5 // num
        expected = slowly_mixed(IMAGES, LABELS, partners, shares * times, boxes * times, label_shares * times, 4)
        np.testing.assert_allclose(new_images.numpy(), expected[0], atol=1e-6)
        np.testing.assert_allclose(soft.numpy(), expected[1], atol=1e-6)


def every_op():
    return [
        MixupOperator(4, alpha=0.4),
        CutmixOperator(4, alpha=1.0),
        FmixOperator(4, max_soft=0.2),
        *(MixupCutmixHybrid(0.8, 1.0, mode=mode, class_num=4) for mode in ("batch", "pair", "elem")),
        MixupCutmixHybrid(cutmix_minmax=[0.2, 0.6], mode="elem", prob=0.7, class_num=4),
        op_sampler(4, MixupOperator={"prob": 0.4}, CutmixOperator={"prob": 0.4, "alpha": 1.0}),
    ]


@pytest.mark.parametrize("op", every_op(), ids=repr)
def test_labels_are_shares_and_what_came_in_stays_as_it_was(op):
    images, labels = paddle.to_tensor(IMAGES), paddle.to_tensor(LABELS)
    for number in range(50):
        new_images, soft = op(images, labels, SampleRng(1, 1, number))
        assert new_images.shape == [5, 3, 8, 12] and soft.shape == [5, 4]
        assert float(soft.min()) >= 0
        np.testing.assert_allclose(soft.sum(axis=1).numpy(), 1, atol=1e-6)
    assert (images.numpy() == IMAGES).all() and (labels.numpy() == LABELS).all()


@pytest.mark.parametrize("op", every_op(), ids=repr)
def test_the_same_numbers_give_the_same_batch_and_nothing_else_is_random(op):
    first, again, other = (run(op, SampleRng(1, 1, number)) for number in (7, 7, 8))
    assert (first[0] == again[0]).all() and (first[1] == again[1]).all()
    params = op.draw(SampleRng(1, 1, 7), IMAGES.shape)
    applied = op.apply(paddle.to_tensor(IMAGES), paddle.to_tensor(LABELS), params)
    assert (applied[0].numpy() == first[0]).all()
    assert (first[0] != other[0]).any()


@pytest.mark.parametrize("op", every_op(), ids=repr)
def test_soft_labels_are_mixed_in_the_same_shares(op):
    if isinstance(op, MixupCutmixHybrid):
        op.label_smoothing = 0.0
    hot = np.eye(4, dtype="float32")[LABELS]
    by_number, by_share = run(op, SampleRng(1, 1, 3)), run(op, SampleRng(1, 1, 3), labels=hot)
    np.testing.assert_array_equal(by_number[1], by_share[1])


@pytest.mark.parametrize("op", every_op(), ids=repr)
@pytest.mark.parametrize("num_samples", [1, 2, 3])
def test_a_small_or_odd_batch_is_a_batch(op, num_samples):
    for number in range(10):
        new_images, _ = run(op, SampleRng(1, 1, number), IMAGES[:num_samples], LABELS[:num_samples])
        if num_samples == 1:
            np.testing.assert_allclose(new_images, IMAGES[:1], atol=1e-6)


@pytest.mark.parametrize(
    "op",
    [
        CutmixOperator(2, alpha=1.0),
        FmixOperator(2, alpha=1.0),
        FmixOperator(2, alpha=1.0, max_soft=0.1),
        MixupOperator(2, alpha=1.0),
        *(MixupCutmixHybrid(0.5, 1.0, mode=mode, label_smoothing=0, class_num=2) for mode in ("batch", "pair", "elem")),
    ],
    ids=repr,
)
def test_a_label_is_the_mean_of_the_pixels(op):
    # Images of ones for class 0, of zeros for class 1: the mean of a mixed image is its share of class 0.
    labels = np.array([0, 1, 1, 0])
    images = np.broadcast_to((labels == 0)[:, None, None, None], (4, 3, 9, 14)).astype("float32")
    for number in range(40):
        new_images, soft = run(op, SampleRng(3, 1, number), images, labels)
        np.testing.assert_allclose(new_images.mean(axis=(1, 2, 3)), soft[:, 0], atol=1e-5)


def test_labels_are_not_corrected_where_nobody_wants_it():
    op = MixupCutmixHybrid(0.0, 1.0, correct_lam=False, label_smoothing=0, class_num=4)
    for number in range(20):
        share = SampleRng(3, 1, number)
        share.random()  # whether to mix at all
        drawn = share.beta(1.0, 1.0)
        assert op.draw(SampleRng(3, 1, number), IMAGES.shape).label_shares == [drawn]


def test_smoothing_is_that_of_szegedy():
    op = MixupCutmixHybrid(mixup_alpha=1.0, label_smoothing=0.1, prob=0, class_num=4)
    _, soft = run(op, SampleRng(1, 1, 1))
    np.testing.assert_allclose(soft, np.eye(4)[LABELS] * 0.9 + 0.1 / 4, atol=1e-7)


def within_five_deviations(hits: int, probability: float, num: int) -> bool:
    return abs(hits - num * probability) <= 5 * math.sqrt(num * probability * (1 - probability))


def test_partners_are_a_random_permutation():
    op = MixupOperator(4)
    counts = np.zeros((5, 5), int)
    for number in range(NUM_DRAWS):
        partners = op.draw(SampleRng(2, 1, number), IMAGES.shape).partners
        assert sorted(partners) == list(range(5))
        counts[np.arange(5), partners] += 1
    assert all(within_five_deviations(count, 0.2, NUM_DRAWS) for count in counts.ravel())


def test_the_hybrid_s_partners_are_the_batch_the_other_way_round():
    assert list(MixupCutmixHybrid(class_num=4).draw(SampleRng(1, 1, 1), IMAGES.shape).partners) == [4, 3, 2, 1, 0]


def test_a_pair_shares_its_draw_and_an_odd_one_stays():
    op = MixupCutmixHybrid(0.8, 1.0, mode="pair", class_num=4)
    for number in range(20):
        mix = op.draw(SampleRng(1, 1, number), IMAGES.shape)
        assert mix.shares == mix.shares[::-1] and mix.boxes == mix.boxes[::-1]
        assert (mix.shares[2], mix.boxes[2].area, mix.label_shares[2]) == (1.0, 0, 1.0)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_have_the_moments_of_their_beta_distribution(alpha):
    op = MixupOperator(4, alpha)
    shares = np.array([op.draw(SampleRng(4, 1, number), IMAGES.shape).shares[0] for number in range(NUM_DRAWS)])
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(shares.mean() - 0.5) < 5 * math.sqrt(variance / NUM_DRAWS)
    # The fourth central moment of a value within 0..1 is at most a fourth of its variance.
    assert abs(shares.var() - variance) < 5 * math.sqrt(variance / 4 / NUM_DRAWS)


def test_operations_are_chosen_as_often_as_they_should():
    op = op_sampler(4, MixupOperator={"prob": 0.5}, CutmixOperator={"prob": 0.3})
    chosen = [op.draw(SampleRng(5, 1, number), IMAGES.shape)[0] for number in range(NUM_DRAWS)]
    for number, probability in enumerate((0.5, 0.3, 0.2)):
        assert within_five_deviations(chosen.count(number), probability, NUM_DRAWS)


def test_without_an_operation_images_stay_and_labels_are_still_shares():
    op = op_sampler(4, MixupOperator={"prob": 0.0})
    new_images, soft = run(op, SampleRng(1, 1, 1))
    assert (new_images == IMAGES).all()
    assert (soft == np.eye(4)[LABELS]).all()


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_the_hybrid_switches_as_often_as_it_should(mode):
    op = MixupCutmixHybrid(1.0, 1.0, prob=0.8, switch_prob=0.25, mode=mode, class_num=4)
    mixes = [op.draw(SampleRng(6, 1, number), (2, 3, 64, 64)) for number in range(NUM_DRAWS)]
    # A cut smaller than a pixel leaves no box: with Beta(1, 1) that is 1 of 2**10 cuts, within the bound.
    num_cut = sum(mix.boxes[0].area > 0 for mix in mixes)
    num_blended = sum(mix.shares[0] < 1 for mix in mixes)
    assert within_five_deviations(num_blended, 0.8 * 0.75, NUM_DRAWS)
    assert within_five_deviations(num_cut, 0.8 * 0.25, NUM_DRAWS)


def test_a_box_has_the_image_s_proportions_and_lies_inside():
    for number in range(500):
        rng = SampleRng(7, 1, number)
        share = rng.random()
        box = draw_box(rng, 40, 60, share)
        assert 0 <= box.top <= box.bottom <= 40 and 0 <= box.left <= box.right <= 60
        # PaddleClas: half the side, rounded down, to either side of the middle.
        height, width = int(40 * math.sqrt(1 - share)) // 2 * 2, int(60 * math.sqrt(1 - share)) // 2 * 2
        assert box.bottom - box.top <= height and box.right - box.left <= width
        if box.top > 0 and box.bottom < 40:
            assert box.bottom - box.top == height
        if box.left > 0 and box.right < 60:
            assert box.right - box.left == width


def test_a_box_within_has_sides_between_its_bounds_and_is_never_cut_off():
    heights = set()
    for number in range(500):
        box = draw_box_within(SampleRng(8, 1, number), 20, 30, 0.25, 0.5)
        assert 0 <= box.top <= box.bottom <= 20 and 0 <= box.left <= box.right <= 30
        assert 5 <= box.bottom - box.top < 10 and 7 <= box.right - box.left < 15
        heights.add(box.bottom - box.top)
    assert heights == {5, 6, 7, 8, 9}
    assert draw_box_within(SampleRng(8, 1, 1), 2, 2, 0.9, 1.0).area == 1


def test_the_brightest_pixels_make_the_mask():
    picture = np.array([[0.3, 0.9, 0.1], [0.7, 0.5, 0.8]])
    assert brightest(picture, 3, 0.0).tolist() == [[0, 1, 0], [1, 0, 1]]
    # Two pixels on either side of the edge: 1, 2/3, 1/3, 0 from the second brightest on.
    np.testing.assert_allclose(brightest(picture, 3, 0.34), soft_mask(), rtol=1e-6)
    assert brightest(picture, 0, 0.5).sum() == 0
    assert brightest(picture, 6, 0.5).sum() == 6


def soft_mask() -> np.ndarray:
    """Pixels by brightness 0.9, 0.8, 0.7, 0.5, 0.3, 0.1; 3 kept, 2 soft on either side."""
    values = {0.9: 1, 0.8: 1, 0.7: 2 / 3, 0.5: 1 / 3, 0.3: 0, 0.1: 0}
    return np.array([[values[0.3], values[0.9], values[0.1]], [values[0.7], values[0.5], values[0.8]]])


def test_a_picture_of_low_frequencies_is_smooth():
    def roughness(decay_power):
        picture = draw_low_frequencies(SampleRng(1, 1, 1), 32, 48, decay_power)
        assert picture.shape == (32, 48)
        return np.abs(np.diff(picture, axis=0)).mean() / picture.std()

    assert roughness(4) < roughness(2) < roughness(0)


@pytest.mark.parametrize("size", [(2, 2), (3, 5), (7, 4), (32, 31)])
def test_masks_come_in_all_sizes(size):
    assert draw_low_frequencies(SampleRng(1, 1, 1), *size, 3.0).shape == size


def test_every_batch_has_random_numbers_of_its_own():
    places = [(1, 1, 0, 0), (2, 1, 0, 0), (1, 2, 0, 0), (1, 1, 1, 0), (1, 1, 0, 1)]
    assert len({batch_rng(*place).random() for place in places}) == len(places)
    # The samples' numbers are at indices below 2**63.
    batch = batch_rng(1, 1, 5, 0).random()
    assert batch != SampleRng(1, 1, 5).random() and batch_rng(1, 1, 5, 0).random() == batch


def test_operations_follow_each_other_and_are_a_function_of_the_place_in_the_run():
    ops = BatchOps([MixupOperator(4), CutmixOperator(4, 1.0)], class_num=4, seed=3, rank=1)
    images, labels = paddle.to_tensor(IMAGES), paddle.to_tensor(LABELS)
    first, again, other = ops(images, labels, 2, 9), ops(images, labels, 2, 9), ops(images, labels, 2, 10)
    rng = batch_rng(3, 2, 9, 1)
    expected = MixupOperator(4)(images, labels, rng)
    expected = CutmixOperator(4, 1.0)(*expected, rng)
    for tensors in zip(first, again, expected):
        assert all((tensor == tensors[0]).all() for tensor in tensors)
    assert (first[0] != other[0]).any()
