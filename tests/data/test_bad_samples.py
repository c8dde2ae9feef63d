# SPDX-License-Identifier: Apache-2.0
"""Images that cannot be read: replaced in training, left out in evaluation, reported once, and never too many."""

from __future__ import annotations

import hashlib
import json
import os

import cv2
import numpy as np
import pytest

from ppcls.data import DistributedBatchSampler, ImageNetDataset, Loader, SampleRng
from ppcls.data.bad_samples import BadSamples
from ppcls.data.batch_maker import MAX_TRIES, BadBatch, BatchMaker
from ppcls.data.transforms import DecodeImage
from ppcls.utils.errors import DataError

NUM_SAMPLES = 50
BAD = (3, 31)
SEED = 5


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Images that are all their number in grey; two are cut off."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(NUM_SAMPLES):
        data = cv2.imencode(".png", np.full((8, 8, 3), number, np.uint8))[1].tobytes()
        (folder / f"{number}.png").write_bytes(data[:-30] if number in BAD else data)
    (folder / "list.txt").write_text("".join(f"{number}.png {number % 7}\n" for number in range(NUM_SAMPLES)))
    (folder / "none.txt").write_text("".join(f"not_there_{number}.png 0\n" for number in range(NUM_SAMPLES)))
    return folder


def make_loader(root, tmp_path, is_train, num_workers=0, max_fraction=0.1, list_file="list.txt", split=None):
    dataset = ImageNetDataset(str(root), str(root / list_file), [DecodeImage()])
    sampler = DistributedBatchSampler(4, shuffle=is_train, num_samples=len(dataset), seed=SEED, pad=is_train)
    split = split or ("Train" if is_train else "Eval")
    bad = BadSamples(dataset, len(dataset), max_fraction, split, tmp_path / "bad_samples.jsonl")
    return Loader(dataset, sampler, num_workers, seed=SEED, bad_samples=bad, is_train=is_train)


def read(loader, epochs=(1,)):
    """The grey of each image and its label, and one hash of everything."""
    greys, labels, digest = [], [], hashlib.sha256()
    for epoch in epochs:
        loader.set_epoch(epoch)
        for images, batch_labels in loader:
            digest.update(images.numpy().tobytes() + batch_labels.numpy().tobytes())
            greys += images[:, 0, 0, 0].tolist()
            labels += batch_labels.tolist()
    loader.close()
    return greys, labels, digest.hexdigest()


def reported(tmp_path):
    return [json.loads(line) for line in (tmp_path / "bad_samples.jsonl").read_text().splitlines()]


def test_in_training_another_image_that_the_seed_chooses_takes_the_place_of_a_bad_one(root, tmp_path):
    greys, labels, _ = read(make_loader(root, tmp_path, is_train=True))
    loader = make_loader(root, tmp_path, is_train=True)
    order = [position.index for positions in loader.sampler for position in positions]
    for index, grey, label in zip(order, greys, labels):
        if index in BAD:
            rng = SampleRng(SEED, 1, index)
            chosen = [rng.integers(0, NUM_SAMPLES) for _ in range(MAX_TRIES)]
            index = next(other for other in chosen if other not in BAD)
        assert (grey, label) == (index, index % 7)
    assert len(greys) == NUM_SAMPLES


def test_replacements_are_the_same_for_any_number_of_workers(root, tmp_path):
    seen = {read(make_loader(root, tmp_path, True, num_workers), (1, 2, 3))[2] for num_workers in (0, 1, 3)}
    assert len(seen) == 1


@pytest.mark.parametrize("num_workers", [0, 2])
def test_in_evaluation_bad_images_are_left_out_and_counted(root, tmp_path, num_workers):
    loader = make_loader(root, tmp_path, False, num_workers)
    for _ in range(2):
        greys, labels, _ = read(loader)
        good = [number for number in range(NUM_SAMPLES) if number not in BAD]
        assert greys == good
        assert labels == [number % 7 for number in good]
        assert loader.num_left_out == 2


def test_a_batch_of_nothing_but_bad_images_does_not_occur(root, tmp_path):
    (root / "one.txt").write_text("3.png 0\n0.png 0\n31.png 0\n")
    for num_workers in (0, 1):
        dataset = ImageNetDataset(str(root), str(root / "one.txt"), [DecodeImage()])
        sampler = DistributedBatchSampler(1, num_samples=3, pad=False)
        loader = Loader(dataset, sampler, num_workers, bad_samples=BadSamples(dataset, 3, 1.0), is_train=False)
        assert [images.shape[0] for images, _ in loader] == [1]
        assert loader.num_left_out == 2


@pytest.mark.parametrize("num_workers", [0, 2])
def test_each_bad_image_is_reported_once_over_epochs_and_continued_runs(root, tmp_path, num_workers, caplog):
    for _ in range(2):
        read(make_loader(root, tmp_path, True, num_workers), (1, 2))
    read(make_loader(root, tmp_path, False, num_workers))
    lines = sorted(reported(tmp_path), key=lambda line: (line["split"], line["index"]))
    assert [(line["split"], line["index"]) for line in lines] == [
        (split, bad) for split in ("Eval", "Train") for bad in BAD
    ]
    for line in lines:
        assert line["file"] == f"{root}/{line['index']}.png"
        assert line["listed"] == f"{root}/list.txt:{line['index'] + 1}"
        assert line["reason"].startswith(f"{line['file']}: ")
    said = [message for message in caplog.messages if "left out: " in message]
    assert len(said) == 6  # in each of the three runs


def test_a_report_that_was_cut_off_is_gone_on_with(root, tmp_path):
    (tmp_path / "bad_samples.jsonl").write_text('{"split": "Train", "ind\n[]\n')
    read(make_loader(root, tmp_path, True))
    assert len((tmp_path / "bad_samples.jsonl").read_text().splitlines()) == 4


def test_the_log_shows_a_few_and_then_counts(tmp_path, caplog):
    bad = BadSamples(None, 100, 1.0)
    for index in range(70):
        bad.note(index, f"{index}.png: damaged")
        bad.note(index, f"{index}.png: damaged")
    assert caplog.messages == [f"[Train] left out: {index}.png: damaged" for index in range(5)] + [
        f"[Train] {count} images could not be read" for count in (8, 16, 32, 64)
    ]


@pytest.mark.parametrize("allowed, max_fraction", [(0, 0.0), (0, 0.0099), (1, 0.01), (2, 0.0299), (100, 1.0)])
def test_more_than_the_fraction_end_the_run(allowed, max_fraction):
    bad = BadSamples(None, 100, max_fraction, "Eval")
    for index in range(allowed):
        bad.note(index, "damaged")
    if allowed < 100:
        with pytest.raises(
            DataError, match=rf"{allowed + 1} of 100 images cannot be read, more than DataLoader.Eval.max"
        ):
            bad.note(100, "damaged")


@pytest.mark.promise("F20")
@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("max_fraction", [0.01, 1.0])
def test_a_data_set_of_nothing_but_bad_images_ends_at_once(root, tmp_path, is_train, num_workers, max_fraction):
    loader = make_loader(root, tmp_path, is_train, num_workers, max_fraction, "none.txt")
    if not is_train and max_fraction == 1.0:
        assert list(loader) == []
        assert loader.num_left_out == NUM_SAMPLES
        return
    expected = "nor can 5 others, drawn in its place" if max_fraction == 1.0 else "more than DataLoader"
    with pytest.raises(DataError, match=expected):
        list(loader)
    assert len(reported(tmp_path)) <= 1 + MAX_TRIES


def test_bad_images_on_the_way_to_a_failure_are_not_forgotten(root):
    dataset = ImageNetDataset(str(root), str(root / "none.txt"), [DecodeImage()])
    loader = DistributedBatchSampler(2, num_samples=len(dataset), seed=SEED)
    with pytest.raises(BadBatch) as caught:
        BatchMaker(dataset, SEED, "replace")(next(iter(loader)))
    assert len(caught.value.bad) == 1 + MAX_TRIES
    assert caught.value.bad[0][0] == 0


class Deadly:
    """One sample ends the process that makes it."""

    def __len__(self):
        return 20

    def sample(self, index, rng):
        if index == 7:
            os.abort()
        return np.full((1, 2, 2), index, np.uint8), index


@pytest.mark.parametrize("is_train", [True, False])
def test_an_image_that_ends_two_workers_counts_as_bad(tmp_path, is_train):
    dataset = Deadly()
    bad = BadSamples(dataset, 20, 0.05, "Train", tmp_path / "bad_samples.jsonl")
    sampler = DistributedBatchSampler(4, num_samples=20, pad=is_train)
    loader = Loader(dataset, sampler, 2, seed=SEED, bad_samples=bad, is_train=is_train)
    rng = SampleRng(SEED, 1, 7)
    other = next(index for index in (rng.integers(0, 20) for _ in range(9)) if index != 7)
    for _ in range(2):
        labels = [label for _, labels in loader for label in labels.tolist()]
        assert labels == [*range(7), *([other] if is_train else []), *range(8, 20)]
    (line,) = reported(tmp_path)
    assert line["index"] == 7
    assert "was ended by SIGABRT while it made this image, as did another before it" in line["reason"]
    loader.close()
