# SPDX-License-Identifier: Apache-2.0
"""Repeated augmentation, written out from its definition."""

from __future__ import annotations

import pytest

from ppcls.data import RASampler
from ppcls.data.position import Position
from ppcls.data.sampler import epoch_order


def batches(num_samples, world=1, batch_size=4, epoch=1, **options):
    ranks = []
    for rank in range(world):
        sampler = RASampler(batch_size, num_samples=num_samples, num_replicas=world, rank=rank, seed=3, **options)
        sampler.set_epoch(epoch)
        ranks.append(list(sampler))
        assert len(sampler) == len(ranks[-1])
    return ranks


def expected_order(num_samples, num_repeats, epoch):
    """Every sample several times, until as many are there as the data set has, rounded down to 256."""
    repeated = [(int(index), repeat) for index in epoch_order(3, epoch, num_samples) for repeat in range(num_repeats)]
    return repeated[: num_samples // 256 * 256 or num_samples]


@pytest.mark.parametrize("num_repeats", [1, 2, 3, 7])
@pytest.mark.parametrize("num_samples", [5, 17, 256, 300, 600])
def test_all_ranks_together_have_the_repeated_order_whatever_their_number(num_samples, num_repeats):
    expected = expected_order(num_samples, num_repeats, epoch=2)
    for world in (1, 2, 3, 4):
        ranks = batches(num_samples, world, 4, epoch=2, shuffle=True, num_repeats=num_repeats)
        own = [[(at.index, at.repeat) for batch in rank for at in batch] for rank in ranks]
        length = len(expected) // world
        # PaddleClas: neighbours, so the repetitions of a sample, go to different ranks.
        assert own == [expected[rank::world][:length] for rank in range(world)]


def test_the_samples_of_one_step_are_the_same_for_any_number_of_ranks():
    (one,) = batches(768, 1, 12, shuffle=True)
    for world in (2, 3, 4):
        steps = zip(*batches(768, world, 12 // world, shuffle=True))
        assert all(set(sum(step, [])) == set(whole) for step, whole in zip(steps, one))


def test_without_shuffling_samples_come_as_they_are():
    (rank,) = batches(5, 1, 3, num_repeats=2)
    expected = [[(0, 0), (0, 1), (1, 0)], [(1, 1), (2, 0)]]
    assert rank == [[Position(1, *at) for at in batch] for batch in expected]


def test_the_remainder_can_be_left_out():
    assert [len(batch) for batch in batches(10, 1, 4, drop_last=True)[0]] == [4, 4]
    assert [len(batch) for batch in batches(10, 1, 4)[0]] == [4, 4, 2]
    assert {len(rank) for rank in batches(300, 3, 4)} == {22}


def test_an_epoch_can_start_at_any_batch_and_differs_from_the_others():
    sampler = RASampler(4, shuffle=True, num_samples=30, seed=3)
    first = list(sampler)
    for start in range(10):
        assert list(sampler.iterate(start)) == first[start:]
    sampler.set_epoch(2)
    assert [[at.index for at in batch] for batch in sampler] != [[at.index for at in batch] for batch in first]


def test_a_repetition_draws_other_numbers():
    draws = {position.draw for batch in batches(300, shuffle=True, num_repeats=3)[0] for position in batch}
    assert len(draws) == 256


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pad": False}, "for training only"),
        ({"num_replicas": 11}, "10 samples are too few for 11 ranks"),
    ],
)
def test_a_bad_setting_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RASampler(4, num_samples=10, **options)
