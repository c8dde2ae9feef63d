# SPDX-License-Identifier: Apache-2.0
"""The numbers that are drawn for samples."""

import numpy as np
import pytest

from ppcls.data.rng import BatchRng, SampleRng, philox


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        # The known answers of Random123, the authors' own library.
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_the_cipher_gives_the_published_answers(counter, key, expected):
    assert philox(counter, key) == expected
    many = philox(tuple(np.full(3, word, np.uint64) for word in counter), key)
    assert [list(words) for words in many] == [[word] * 3 for word in expected]


@pytest.mark.parametrize("seed", [0, 7, 2**40 + 3, -1])
def test_a_batch_draws_what_its_samples_draw(seed):
    indices = np.array([0, 1, 5, 2**31, 2**33 + 1])
    batch = BatchRng(seed, 3, indices)
    drawn = [batch.random(), batch.integers(0, 9), batch.uniform(-2.0, 3.0), batch.integers(4, 5), batch.random()]
    for column, index in enumerate(indices):
        rng = SampleRng(seed, 3, index)
        expected = [rng.random(), rng.integers(0, 9), rng.uniform(-2.0, 3.0), rng.integers(4, 5), rng.random()]
        assert [values[column] for values in drawn] == expected


def test_seed_epoch_and_index_each_change_what_is_drawn():
    places = [(0, 1, 0), (1, 1, 0), (0, 2, 0), (0, 1, 1), (2**32, 1, 0), (0, 1, 2**32)]
    assert len({SampleRng(*place).random() for place in places}) == len(places)


def test_numbers_are_spread_evenly():
    rng = BatchRng(0, 1, np.arange(100_000))
    for _ in range(3):
        values = rng.random()
        assert values.min() >= 0 and values.max() < 1
        # The mean of n uniform numbers has a standard deviation of 1 / sqrt(12 n): here five of them.
        assert abs(values.mean() - 0.5) < 5 / np.sqrt(12 * len(values))
        counts = np.bincount((values * 10).astype(int), minlength=10)
        assert abs(counts - 10_000).max() < 5 * np.sqrt(100_000 * 0.1 * 0.9)


def test_normal_numbers_have_their_moments():
    values = np.array([SampleRng(0, 1, index).normal(2.0, 3.0) for index in range(20_000)])
    assert abs(values.mean() - 2.0) < 5 * 3.0 / np.sqrt(len(values))
    assert abs(values.std() - 3.0) < 5 * 3.0 / np.sqrt(2 * len(values))


def test_a_permutation_has_every_number_once_and_every_order():
    orders = [tuple(SampleRng(0, 1, index).permutation(3)) for index in range(600)]
    assert {tuple(sorted(order)) for order in orders} == {(0, 1, 2)}
    assert all(orders.count(order) > 60 for order in set(orders)) and len(set(orders)) == 6


def test_beta_and_dirichlet_follow_from_the_place():
    assert SampleRng(0, 1, 4).beta(0.2, 0.2) == SampleRng(0, 1, 4).beta(0.2, 0.2)
    assert SampleRng(0, 1, 4).beta(0.2, 0.2) != SampleRng(0, 1, 5).beta(0.2, 0.2)
    assert SampleRng(0, 1, 4).dirichlet([1.0, 1.0, 1.0]).sum() == pytest.approx(1.0)
