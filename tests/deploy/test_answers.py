# SPDX-License-Identifier: Apache-2.0
"""Answers for images: in order, bad ones named, whatever the batch size."""

import shutil

import cv2
import numpy as np
import pytest

from ppcls.data.images import find_images, load_image
from ppcls.data.transforms.crop import CropImage
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.tensor import NormalizeImage, ToCHWImage
from ppcls.deploy.answers import answers
from ppcls.utils.errors import DataError, StorageError

TRANSFORMS = [DecodeImage(), NormalizeImage(mean=[0, 0, 0], std=[1, 1, 1], order=""), ToCHWImage()]


@pytest.fixture
def images(tmp_path):
    """Seven grey images; number i has the value 10 * i."""
    for index in range(7):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full([4, 4, 3], 10 * index, np.uint8))
    return [str(tmp_path / f"{index}.png") for index in range(7)]


@pytest.fixture
def ask():
    """Answer with the mean of each image, times 255; remember the batches."""

    def run(paths, batch_size):
        run.batches = []

        def mean(batch):
            run.batches.append(len(batch))
            return batch.mean(axis=(1, 2, 3))[:, None] * 255

        def post(logits, names):
            return [{"value": round(float(row[0])), "file_name": name} for row, name in zip(logits, names)]

        return list(answers(mean, paths, TRANSFORMS, post, batch_size))

    return run


@pytest.mark.parametrize(("batch_size", "batches"), [(1, [1] * 7), (3, [3, 3, 1]), (7, [7]), (100, [7])])
def test_every_image_is_answered_in_order_for_any_batch_size(ask, images, batch_size, batches):
    results = ask(images, batch_size)
    assert [result["value"] for result in results] == [0, 10, 20, 30, 40, 50, 60]
    assert [result["file_name"] for result in results] == images
    assert ask.batches == batches


@pytest.mark.parametrize("bad", [0, 1, 2, 3, 6])
def test_a_bad_image_at_any_place_is_named_and_the_others_are_answered(ask, images, bad):
    with open(images[bad], "wb") as file:
        file.write(b"no image")
    results = ask(images, 3)
    assert [result["file_name"] for result in results] == images
    assert results[bad]["error"].startswith(f"{images[bad]}: not an image")
    assert [result["value"] for result in results if "error" not in result] == [
        10 * index for index in range(7) if index != bad
    ]


def test_a_batch_of_bad_images_only_never_reaches_the_model(ask, tmp_path):
    paths = [str(tmp_path / name) for name in ("a.png", "b.png")]
    assert all("error" in result for result in ask(paths, 2))
    assert ask.batches == []


def test_images_of_different_sizes_are_answered_in_order(ask, images):
    cv2.imwrite(images[1], np.full([6, 5, 3], 10, np.uint8))
    assert [result["value"] for result in ask(images, 7)] == [0, 10, 20, 30, 40, 50, 60]
    assert sorted(ask.batches) == [1, 6]


def test_an_answer_comes_before_the_next_batch_is_read(images):
    paths = [images[0], f"{images[0]}.later.png"]
    running = answers(lambda batch: batch, paths, TRANSFORMS, lambda _, names: [{}] * len(names), 1)
    assert next(running) == {}
    shutil.copy(images[1], paths[1])
    assert next(running) == {}


def test_a_postprocessing_that_loses_answers_is_told_of(images):
    running = answers(lambda batch: batch, images[:2], TRANSFORMS, lambda _, names: [{}], 2)
    with pytest.raises(StorageError, match="gives 1 results for 2 images"):
        next(running)


def test_an_image_that_does_not_suit_the_transforms_is_an_error_with_its_name(images):
    with pytest.raises(DataError, match=r"0\.png: CropImage cannot cut 40 x 40"):
        load_image(images[0], [DecodeImage(), CropImage(size=40), *TRANSFORMS[1:]])


def test_transforms_that_do_not_end_in_float_chw_are_an_error_that_says_so(images):
    with pytest.raises(DataError, match=r"the transforms end in uint8 \[4, 4, 3\], not in float32 \[C, H, W\]"):
        load_image(images[0], [DecodeImage()])


def test_decoding_is_added_when_the_transforms_do_not_say_it(images):
    assert np.array_equal(load_image(images[3], TRANSFORMS[1:]), load_image(images[3], TRANSFORMS))


def test_a_folder_gives_its_images_in_a_fixed_order_with_subfolders_and_any_case(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.PNG", "a.jpg", "notes.txt", "sub/c.jpeg"):
        (tmp_path / name).touch()
    assert find_images(str(tmp_path)) == [str(tmp_path / name) for name in ("a.jpg", "b.PNG", "sub/c.jpeg")]


def test_a_file_is_taken_whatever_its_ending(tmp_path):
    (tmp_path / "photo").touch()
    assert find_images(str(tmp_path / "photo")) == [str(tmp_path / "photo")]


def test_a_list_names_images_relative_to_the_place(tmp_path):
    (tmp_path / "list.txt").write_bytes("\ufeffa.png 3\r\n\r\n  \nsub/b.png\r\n".encode())
    listed = find_images("/place", str(tmp_path / "list.txt"))
    assert listed == ["/place/a.png", "/place/sub/b.png"]


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe.png\n"])
def test_a_list_without_a_readable_line_is_an_error(tmp_path, content):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(DataError, match="list.txt"):
        find_images(None, str(tmp_path / "list.txt"))


def test_a_place_that_is_missing_empty_or_not_given_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        find_images(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="no images .*jpg"):
        find_images(str(tmp_path))
    with pytest.raises(DataError, match="infer_imgs: not given"):
        find_images(None)
