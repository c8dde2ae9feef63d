# SPDX-License-Identifier: Apache-2.0
"""P classes with K samples each, as often as their weights say."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from ppcls.data import PKSampler

LABELS = np.array([0] * 6 + [3] * 2 + [1] * 5 + [2] * 12 + [7] * 3)
NUM_EPOCHS = 400


def sampler(batch_size=6, sample_per_id=3, labels=LABELS, **options):
    return PKSampler(batch_size, sample_per_id, labels=labels, num_samples=len(labels), **options)


def epochs(each, num=NUM_EPOCHS):
    for epoch in range(1, num + 1):
        each.set_epoch(epoch)
        yield from each


def test_a_batch_has_p_classes_with_k_samples_each():
    for batch in epochs(sampler()):
        labels = LABELS[[position.index for position in batch]]
        assert set(Counter(labels.tolist()).values()) == {3} and len(set(labels.tolist())) == 2
        for label in set(labels.tolist()):
            own = [position.index for position in batch if LABELS[position.index] == label]
            # Only label 3 has fewer than K samples.
            assert len(set(own)) == 3 or label == 3


def test_an_epoch_has_as_many_batches_as_the_data_set_fills():
    for drop_last, world in itertools.product((True, False), (1, 2)):
        each = sampler(drop_last=drop_last, num_replicas=world)
        expected = len(LABELS) / (6 * world)
        assert len(each) == len(list(each)) == (math.floor if drop_last else math.ceil)(expected)
        assert all(len(batch) == 6 for batch in each)


def first_classes(each):
    """How often each class is the first that is drawn."""
    counts = Counter(int(LABELS[batch[0].index]) for batch in epochs(each))
    return counts, sum(counts.values())


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({"sample_method": "sample_avg_prob"}, {0: 6, 1: 5, 2: 12, 3: 2, 7: 3}),
        ({"sample_method": "id_avg_prob"}, {0: 1, 1: 1, 2: 1, 3: 1, 7: 1}),
        ({"id_list": [1, 2, 7, 9], "ratio": [2, 0]}, {0: 6, 1: 10, 2: 24, 3: 2, 7: 0}),
        (
            {"sample_method": "id_avg_prob", "id_list": [0, 2, 1, 3], "ratio": [3, 0.5]},
            {0: 3, 1: 3, 2: 3, 3: 0.5, 7: 1},
        ),
    ],
)
def test_classes_come_as_often_as_their_weights_say(options, weights):
    counts, num = first_classes(sampler(**options))
    for label, weight in weights.items():
        probability = weight / sum(weights.values())
        bound = 5 * math.sqrt(num * probability * (1 - probability))
        assert abs(counts[label] - num * probability) <= bound, label


def test_every_sample_of_a_class_is_as_likely():
    counts = Counter(position.index for batch in epochs(sampler()) for position in batch)
    of_class = [counts[index] for index in np.flatnonzero(LABELS == 2)]
    mean = np.mean(of_class)
    # Three of twelve: the variance is that of a binomial with 1/4, and sums over batches.
    num = mean / 0.25
    assert max(abs(count - mean) for count in of_class) <= 5 * math.sqrt(num * 0.25 * 0.75)


def test_the_batches_of_a_step_are_the_same_for_any_number_of_ranks():
    labels = np.arange(40) // 4
    (one,) = [list(sampler(12, 2, labels, seed=5))]
    for world in (2, 3):
        ranks = [list(sampler(12 // world, 2, labels, num_replicas=world, rank=rank, seed=5)) for rank in range(world)]
        assert [sum(step, []) for step in zip(*ranks)] == one


def test_ranks_that_run_out_of_classes_draw_anew():
    labels = np.arange(40) // 8
    ranks = [list(sampler(6, 2, labels, num_replicas=4, rank=rank)) for rank in range(4)]
    for step in zip(*ranks):
        for batch in step:
            assert len({labels[position.index] for position in batch}) == 3
        assert len({tuple(batch) for batch in step}) == 4


def test_an_epoch_can_start_at_any_batch_and_follows_from_seed_and_epoch():
    each = sampler(seed=1)
    first = list(each)
    for start in range(6):
        assert list(each.iterate(start)) == first[start:]
    assert list(sampler(seed=1)) == first != list(sampler(seed=2))
    each.set_epoch(2)
    assert [at.index for batch in each for at in batch] != [at.index for batch in first for at in batch]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 7}, "batch_size must be a multiple of sample_per_id; got 7 and 3"),
        ({"batch_size": 18}, "a batch takes 6 classes, but there are only 5 to draw from"),
        ({"id_list": [0, 1, 2], "ratio": [1]}, "two labels for each ratio; got 3 labels and 1 ratios"),
        ({"id_list": [0, 9], "ratio": [-1]}, r"ratio must be 0 or more; got \[-1\]"),
        ({"id_list": [0, 9], "ratio": [0]}, "only 0 to draw from"),
        ({"pad": False}, "for training only"),
    ],
)
def test_a_bad_setting_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sampler(**options)


def test_a_setting_without_effect_is_said(caplog):
    sampler(shuffle=False)
    assert "PKSampler: shuffle has no effect" in caplog.text
