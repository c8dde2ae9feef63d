# SPDX-License-Identifier: Apache-2.0
"""The order of samples: a function of (seed, epoch), divided among ranks without loss."""

from __future__ import annotations

import itertools
import pickle
from collections import Counter

import numpy as np
import pytest

from ppcls.data.sampler import BatchSampler, DistributedBatchSampler, epoch_order

LENGTHS = range(1, 18)
WORLDS = range(1, 5)


def batches_of_ranks(num_samples: int, world: int, batch_size: int, epoch: int = 1, **options) -> list[list[list[int]]]:
    """The batches of every rank, as indices."""
    ranks = []
    for rank in range(world):
        sampler = DistributedBatchSampler(
            batch_size, num_samples=num_samples, num_replicas=world, rank=rank, seed=7, **options
        )
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(sampler) == len(batches)
        assert all(position == (epoch, position.index, 0, None) for batch in batches for position in batch)
        ranks.append([[position.index for position in batch] for batch in batches])
    return ranks


def global_order(ranks: list[list[list[int]]]) -> list[int]:
    """What all ranks together see, step by step."""
    steps = itertools.zip_longest(*ranks, fillvalue=[])
    return [index for step in steps for batch in step for index in batch]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
def test_evaluation_has_every_sample_exactly_once(batch_size, shuffle):
    for num_samples, world in itertools.product(LENGTHS, WORLDS):
        ranks = batches_of_ranks(num_samples, world, batch_size, pad=False, shuffle=shuffle)
        assert Counter(global_order(ranks)) == Counter(range(num_samples)), (num_samples, world)
        assert all(1 <= len(batch) <= batch_size for rank in ranks for batch in rank)
        if not shuffle:
            assert global_order(ranks) == list(range(num_samples))


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
def test_training_ranks_have_equal_batches_and_miss_nothing(batch_size, shuffle):
    for num_samples, world in itertools.product(LENGTHS, WORLDS):
        ranks = batches_of_ranks(num_samples, world, batch_size, pad=True, shuffle=shuffle)
        sizes = [[len(batch) for batch in rank] for rank in ranks]
        assert all(row == sizes[0] for row in sizes), (num_samples, world)
        seen = global_order(ranks)
        assert set(seen) == set(range(num_samples))
        # Only what makes the number divisible by the ranks is repeated, from the head of the order.
        num_repeated = -num_samples % world
        assert len(seen) == num_samples + num_repeated
        assert seen[num_samples:] == np.resize(seen[:num_samples], num_repeated).tolist()


def test_the_remainder_can_be_left_out():
    for num_samples, world, pad in itertools.product(LENGTHS, WORLDS, [False, True]):
        ranks = batches_of_ranks(num_samples, world, 2, drop_last=True, pad=pad)
        assert global_order(ranks) == list(range(num_samples // (2 * world) * 2 * world))
        assert {len(batch) for rank in ranks for batch in rank} <= {2}


def test_a_rank_takes_its_chunk_of_every_global_batch():
    # Written out by hand: 11 samples, global batch 4; the 3 left over and one repeated go evenly.
    assert batches_of_ranks(11, 2, 2, pad=True) == [[[0, 1], [4, 5], [8, 9]], [[2, 3], [6, 7], [10, 0]]]
    assert batches_of_ranks(11, 2, 2, pad=False) == [[[0, 1], [4, 5], [8, 9]], [[2, 3], [6, 7], [10]]]
    assert batches_of_ranks(5, 2, 2, pad=False) == [[[0, 1], [4]], [[2, 3]]]
    assert batches_of_ranks(1, 3, 2, pad=False) == [[[0]], [], []]


def test_the_order_is_the_same_for_any_number_of_ranks():
    for num_samples in LENGTHS:
        expected = global_order(batches_of_ranks(num_samples, 1, 12, shuffle=True, pad=False, epoch=3))
        for world in (1, 2, 3, 4):
            ranks = batches_of_ranks(num_samples, world, 12 // world, shuffle=True, pad=False, epoch=3)
            assert global_order(ranks) == expected
            ranks = batches_of_ranks(num_samples, world, 12 // world, shuffle=True, pad=True, epoch=3)
            assert global_order(ranks)[:num_samples] == expected


def test_the_order_is_a_function_of_seed_and_epoch():
    orders = {(seed, epoch): tuple(epoch_order(seed, epoch, 100)) for seed in range(5) for epoch in range(1, 6)}
    assert len(set(orders.values())) == 25
    for (seed, epoch), order in orders.items():
        assert sorted(order) == list(range(100))
        assert tuple(epoch_order(seed, epoch, 100)) == order


def test_the_order_never_changes_between_versions():
    # Philox4x64-10 of Salmon et al. 2011 has no room for change, so neither has this order.
    assert epoch_order(0, 1, 10).tolist() == philox_order(0, 1, 10)
    assert epoch_order(2**63 + 5, 7, 33).tolist() == philox_order(2**63 + 5, 7, 33)


def philox_order(seed: int, epoch: int, num_samples: int) -> list[int]:
    """The sorted words of Philox4x64-10, written out from the paper (Salmon et al., SC11, section 3.3)."""
    mask = 2**64 - 1
    words: list[int] = []
    block = 0
    while len(words) < num_samples:
        block += 1  # NumPy counts up before the first block
        c0, c1, c2, c3, k0, k1 = block, 0, 1, 0, seed, epoch
        for _ in range(10):
            p0, p1 = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
            c0, c1, c2, c3 = (p1 >> 64) ^ c1 ^ k0, p1 & mask, (p0 >> 64) ^ c3 ^ k1, p0 & mask
            k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
        words += [c0, c1, c2, c3]
    return sorted(range(num_samples), key=words.__getitem__)


def test_every_position_is_as_likely():
    counts = np.zeros((10, 10), int)
    for epoch in range(1, 2001):
        counts[np.arange(10), epoch_order(1, epoch, 10)] += 1
    # Each cell is binomial(2000, 0.1): 5 standard deviations.
    assert np.abs(counts - 200).max() < 5 * np.sqrt(2000 * 0.1 * 0.9)


def test_an_epoch_can_start_at_any_batch():
    sampler = DistributedBatchSampler(3, shuffle=True, num_samples=17, seed=5)
    sampler.set_epoch(4)
    batches = list(sampler)
    for start in range(len(batches) + 2):
        assert list(sampler.iterate(start)) == batches[start:]


def test_an_iteration_keeps_the_epoch_it_began_with():
    sampler = DistributedBatchSampler(2, shuffle=True, num_samples=8)
    iterator = iter(sampler)
    sampler.set_epoch(2)
    assert {position.epoch for batch in iterator for position in batch} == {1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0, "num_samples": 4}, "batch_size must be at least 1; got 0"),
        ({"batch_size": 1, "num_samples": 0}, "num_samples must be at least 1; got 0"),
        ({"batch_size": 1, "num_samples": 4, "num_replicas": 2, "rank": 2}, r"rank must be within 0\.\.1; got 2"),
    ],
)
def test_a_bad_setting_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DistributedBatchSampler(**options)


def test_the_other_name_and_a_copy_through_pickle_give_the_same_batches():
    sampler = DistributedBatchSampler(3, shuffle=True, num_samples=10, seed=2)
    assert list(BatchSampler(3, shuffle=True, num_samples=10, seed=2)) == list(sampler)
    assert list(pickle.loads(pickle.dumps(sampler))) == list(sampler)  # noqa: S301 (our own bytes)
