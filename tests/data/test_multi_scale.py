# SPDX-License-Identifier: Apache-2.0
"""Batches of different sizes: what the sampler draws, and that images come in it for any number of workers."""

from __future__ import annotations

import math
from collections import Counter

import cv2
import numpy as np
import pytest

from ppcls.config.registry import TRANSFORMS, Call
from ppcls.data import Loader, MultiScaleDataset, MultiScaleSampler, SampleRng

SCALES = [64, 32, [96, 48]]


def sampler(num_samples=100, first_bs=8, scales=SCALES, **options):
    return MultiScaleSampler(scales, first_bs, num_samples=num_samples, **options)


def test_batches_of_smaller_images_have_more_of_them():
    # 64 * 64 * 8 pixels, in sizes that are multiples of 32.
    assert sampler().scales == [((64, 64), 8), ((32, 32), 32), ((96, 32), 10)]
    assert sampler(divided_factor=24).scales == [((48, 48), 14), ((24, 24), 56), ((96, 48), 7)]
    assert sampler(scales=[32, 320], first_bs=2).scales == [((32, 32), 2), ((320, 320), 1)]


def test_a_batch_has_one_size_and_the_samples_that_go_with_it():
    num_by_size = dict(sampler().scales)
    for batch in sampler():
        (size,) = {position.size for position in batch}
        assert len(batch) == num_by_size[size]
        assert {(position.epoch, position.repeat) for position in batch} == {(1, 0)}


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("num_samples", [1, 7, 100, 333])
def test_every_sample_comes_and_only_the_end_begins_again(num_samples, world):
    ranks = [list(sampler(num_samples, num_replicas=world, rank=rank, seed=4)) for rank in range(world)]
    steps = list(zip(*ranks))
    assert {len(rank) for rank in ranks} == {len(sampler(num_samples, num_replicas=world, seed=4))}
    assert all(len({position.size for batch in step for position in batch}) == 1 for step in steps)
    seen = [position.index for step in steps for batch in step for position in batch]
    assert set(seen) == set(range(num_samples))
    assert seen[num_samples:] == np.resize(seen[:num_samples], max(len(seen) - num_samples, 0)).tolist()
    assert len(seen) - num_samples < 32 * world


def test_sizes_and_samples_are_the_same_for_any_number_of_ranks():
    (one,) = [list(sampler(first_bs=8, seed=4, scales=[64, 32]))]
    for world in (2, 4):
        each = [sampler(first_bs=8 // world, seed=4, scales=[64, 32], num_replicas=world, rank=r) for r in range(world)]
        assert [sum(step, []) for step in zip(*each)] == one


def test_every_epoch_has_the_same_sizes_in_another_order():
    each = sampler(1000)
    orders = []
    for epoch in range(1, 6):
        each.set_epoch(epoch)
        orders.append(tuple(batch[0].size for batch in each))
    assert len(set(orders)) == 5
    assert len({tuple(sorted(order)) for order in orders}) == 1


def test_every_size_is_as_likely():
    counts = Counter(batch[0].size for seed in range(100) for batch in sampler(200, scales=[64, 32], seed=seed))
    # The last step of an epoch is more often one of many samples; 1 step of 10.
    num = sum(counts.values())
    assert abs(counts[(64, 64)] - num / 2) <= 5 * math.sqrt(num / 4) + 100


def test_an_epoch_can_start_at_any_batch():
    each = sampler(200, seed=2)
    batches = list(each)
    for start in range(len(batches) + 2):
        assert list(each.iterate(start)) == batches[start:]


def test_one_size_in_the_order_of_the_list_when_it_is_no_training():
    batches = list(sampler(20, first_bs=8, scales=[50, 32], is_training=False))
    assert [[position.index for position in batch] for batch in batches] == [
        list(range(8)),
        list(range(8, 16)),
        [16, 17, 18, 19, 0, 1, 2, 3],
    ]
    assert {position.size for batch in batches for position in batch} == {(50, 50)}


def test_samples_keep_their_order_without_shuffling():
    seen = [position.index for batch in sampler(100, shuffle=False) for position in batch]
    assert seen[:100] == list(range(100))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": []}, "scales is empty"),
        ({"scales": [64, [64, 31]]}, "scales: 64 x 31 is less than divided_factor, 32"),
        ({"pad": False}, "for training only"),
    ],
)
def test_a_bad_setting_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sampler(**options)


@pytest.fixture
def make_dataset(tmp_path):
    rng = np.random.default_rng(0)
    lines = []
    for number in range(12):
        height, width = rng.integers(100, 140, 2)
        cv2.imwrite(str(tmp_path / f"{number}.png"), rng.integers(0, 256, (height, width, 3), np.uint8))
        lines.append(f"{number}.png {number % 3}\n")
    (tmp_path / "list.txt").write_text("".join(lines))

    def make(**ops):
        calls = [Call(TRANSFORMS[name], params or {}) for name, params in ops.items()]
        return MultiScaleDataset(str(tmp_path), str(tmp_path / "list.txt"), calls)

    return make


@pytest.mark.parametrize(
    "ops",
    [
        {"DecodeImage": None, "RandCropImage": {"size": 50, "scale": [0.3, 0.9]}, "RandFlipImage": None},
        {"DecodeImage": None, "ResizeImage": {"resize_short": 100}},
        {"DecodeImage": None, "CropImage": {"size": 50}},
    ],
    ids=lambda ops: list(ops)[1],
)
def test_an_image_in_a_size_is_that_of_operations_with_this_size(make_dataset, ops):
    dataset = make_dataset(**ops)
    written = {key: value for key, value in list(ops.values())[1].items() if key != "resize_short"}
    name = list(ops)[1]
    for size in ((64, 32), (32, 64)):
        other = make_dataset(**{**ops, name: {**written, "size": list(size)}})
        for index in range(3):
            image, label = dataset.sample(index, SampleRng(1, 1, index), size)
            expected, expected_label = other.sample(index, SampleRng(1, 1, index))
            assert image.shape == (3, size[1], size[0]) and label == expected_label
            assert (image == expected).all()


def test_without_a_size_the_written_one_holds(make_dataset):
    dataset = make_dataset(DecodeImage=None, RandCropImage={"size": 50})
    dataset.sample(0, SampleRng(1, 1, 0), (32, 32))
    assert dataset.sample(0, SampleRng(1, 1, 0))[0].shape == (3, 50, 50)


def test_a_list_of_operations_without_a_size_is_refused(make_dataset):
    with pytest.raises(ValueError, match="one of RandCropImage, ResizeImage, CropImage has to be there"):
        make_dataset(DecodeImage=None, RandFlipImage=None)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_batches_are_the_same_with_and_without_workers(make_dataset, num_workers):
    dataset = make_dataset(DecodeImage=None, RandCropImage={"size": 50}, NormalizeImage={"order": ""})
    each = sampler(12, first_bs=2, scales=[32, 64, [96, 32]], seed=1)
    finish = dataset.pipeline.finish()
    expected = [[tensor.numpy() for tensor in batch] for batch in Loader(dataset, each, seed=1, finish=finish)]
    loader = Loader(dataset, each, num_workers, seed=1, finish=finish)
    try:
        for epoch in (1, 2):
            batches = [[tensor.numpy() for tensor in batch] for batch in loader]
            assert len({images.shape for images, _ in batches}) > 1
            for batch, (images, labels) in zip(batches, expected):
                assert (batch[0] == images).all() and (batch[1] == labels).all(), epoch
    finally:
        loader.close()
