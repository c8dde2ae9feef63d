# SPDX-License-Identifier: Apache-2.0
"""List files: what is read from them, and what each fault in them says."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest

from ppcls.data import ClsDataset, ImageNetDataset
from ppcls.data.transforms import CropImage, DecodeImage, NormalizeImage, RandFlipImage, ToCHWImage
from ppcls.utils.errors import DataError

EXPECTED = "; expected: path label, the label a whole number from 0 on"


@pytest.fixture
def write_list(tmp_path):
    """A function that writes a list file and returns its path as text."""

    def write(content: str | bytes) -> str:
        path = tmp_path / "train_list.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


@pytest.fixture
def write_image(tmp_path):
    """A function that writes a PNG file of noise and returns its pixels."""

    def write(name: str, height: int = 8, width: int = 10) -> np.ndarray:
        image = np.random.RandomState(7).randint(0, 256, (height, width, 3)).astype("uint8")
        (tmp_path / name).write_bytes(cv2.imencode(".png", image[:, :, ::-1])[1].tobytes())
        return image

    return write


def message_of(path: str, **options) -> str:
    with pytest.raises(DataError) as caught:
        ImageNetDataset("", path, **options)
    return str(caught.value)


def test_paths_and_labels_are_read_in_order(write_list):
    dataset = ImageNetDataset("root", write_list("a.jpg 2\nb/c.jpg\t0\nd.jpg   2\n"))
    assert len(dataset) == 3
    assert list(dataset.paths) == ["a.jpg", "b/c.jpg", "d.jpg"]
    assert dataset.labels.tolist() == [2, 0, 2] and dataset.labels.dtype == np.int64
    assert dataset.num_classes == 2
    assert dataset.class_counts.tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("content", "delimiter"),
    [
        ("my photo 1.jpg 3\n", None),
        ("my photo 1.jpg\t3\n", "\t"),
        ("my photo 1.jpg,3\n", ","),
        ("my photo 1.jpg , 3\n", ","),
        ("\ufeffmy photo 1.jpg 3\r\n", None),
        ("\n\nmy photo 1.jpg 3", None),
    ],
)
def test_spaces_delimiters_and_windows_files_are_understood(write_list, content, delimiter):
    dataset = ImageNetDataset("", write_list(content), delimiter=delimiter)
    assert (list(dataset.paths), dataset.labels.tolist()) == (["my photo 1.jpg"], [3])


def test_relabel_numbers_the_sorted_labels(write_list):
    # PaddleClas gives 3, 2, 0, 4, 1 here, the order of a Python set.
    path = write_list("".join(f"{label}.jpg {label}\n" for label in (100, 3, 64, 7, 32, 3)))
    assert ImageNetDataset("", path, relabel=True).labels.tolist() == [4, 0, 3, 1, 2, 0]


def test_cls_dataset_is_the_same_thing(write_list):
    dataset = ClsDataset("", write_list("a.jpg 1\n"))
    assert isinstance(dataset, ImageNetDataset) and dataset.labels.tolist() == [1]


def test_a_missing_list_file_is_named(tmp_path):
    path = str(tmp_path / "none.txt")
    assert message_of(path) == f"cls_label_path: {path}: cannot be read (No such file or directory)"


@pytest.mark.parametrize("content", ["", "\n \r\n"])
def test_an_empty_list_says_what_belongs_in_it(write_list, content):
    path = write_list(content)
    assert message_of(path) == f"{path}: the list is empty{EXPECTED}"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("lonely.jpg", "no label in 'lonely.jpg'"),
        ("a.jpg cat", "label 'cat' is not a whole number"),
        ("a.jpg 1.5", "label '1.5' is not a whole number"),
        ("a.jpg -1", "label -1 is negative"),
        ("a.jpg 99999999999999999999", "label 99999999999999999999 is too large"),
    ],
)
def test_a_bad_line_is_named_by_file_line_and_value(write_list, line, problem):
    path = write_list(f"fine.jpg 0\n\n{line}\nfine.jpg 1\n")
    assert message_of(path) == f"{path}:3: {problem}{EXPECTED}"


def test_many_bad_lines_are_shown_five_and_counted(write_list):
    path = write_list("".join(f"{n}.jpg x{n}\n" for n in range(1, 13)))
    shown = [f"{path}:{n}: label 'x{n}' is not a whole number" for n in range(1, 6)]
    assert message_of(path).split("\n") == [*shown, f"and 7 more lines like these{EXPECTED}"]


def test_another_encoding_is_refused_with_its_line(write_list):
    path = write_list(b"a.jpg 0\nb.jpg 1\n" + "Größe.jpg 2\n".encode("latin-1"))
    assert message_of(path) == f"{path}:3: not UTF-8; store the list file as UTF-8"


def test_the_delimiter_asked_for_is_in_the_message(write_list):
    path = write_list("a.jpg 0\n")
    assert "no label in 'a.jpg 0'; expected: path,label" in message_of(path, delimiter=",")


def test_a_label_beyond_the_model_is_refused_with_line_and_remedy(write_list):
    path = write_list("a.jpg 0\nb.jpg 9\nc.jpg 10\n")
    dataset = ImageNetDataset("", path)
    dataset.check_labels(11)
    with pytest.raises(DataError) as caught:
        dataset.check_labels(10)
    assert str(caught.value) == (
        f"{path}:3: label 10 is outside 0..9 (Arch.class_num is 10); "
        "set Arch.class_num to 11, mend the list, or set relabel to True"
    )


def test_many_labels_beyond_the_model_are_counted(write_list):
    dataset = ImageNetDataset("", write_list("".join(f"{n}.jpg {n}\n" for n in range(20))))
    with pytest.raises(DataError) as caught:
        dataset.check_labels(10)
    lines = str(caught.value).split("\n")
    assert len(lines) == 6
    assert lines[-1].startswith("and 5 more lines like these; set Arch.class_num to 20")


def test_a_sample_is_transformed_and_channels_first(tmp_path, write_list, write_image):
    image = write_image("a.png")
    path = write_list("a.png 1\n")
    for ops in (None, [], [DecodeImage()], [DecodeImage(), ToCHWImage()], [DecodeImage(channel_first=True)]):
        sample, label = ImageNetDataset(str(tmp_path), path, ops).sample(0)
        np.testing.assert_array_equal(sample, image.transpose(2, 0, 1))
        assert label == 1 and type(label) is int
    sample, _ = ImageNetDataset(str(tmp_path), path, [DecodeImage(), NormalizeImage(order="")]).sample(0)
    expected = (image / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(sample, expected.transpose(2, 0, 1), rtol=1e-5, atol=1e-6)
    assert sample.dtype == np.float32


def test_random_operations_draw_from_the_generator_given(tmp_path, write_list, write_image):
    image = write_image("a.png").transpose(2, 0, 1)
    dataset = ImageNetDataset(str(tmp_path), write_list("a.png 1\n"), [DecodeImage(), RandFlipImage()])
    for seed in range(10):
        flipped = bool(np.random.default_rng(seed).integers(0, 2))
        sample, _ = dataset.sample(0, np.random.default_rng(seed))
        np.testing.assert_array_equal(sample, image[:, :, ::-1] if flipped else image)


def test_read_gives_the_bytes_of_the_file(tmp_path, write_list, write_image):
    write_image("a.png")
    dataset = ImageNetDataset(str(tmp_path), write_list("a.png 4\n"))
    assert dataset.read(0) == ((tmp_path / "a.png").read_bytes(), 4)


def test_an_image_that_cannot_be_used_is_named_with_its_line(tmp_path, write_list, write_image):
    write_image("small.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "page.png").write_bytes(b"<html></html>")
    path = write_list("none.png 0\n\nempty.png 1\npage.png 2\nsmall.png 3\n")
    dataset = ImageNetDataset(str(tmp_path), path, [DecodeImage(), CropImage(224)])
    expected = [
        f"{tmp_path}/none.png: cannot be read (No such file or directory); listed in {path}:1",
        f"{tmp_path}/empty.png: the file is empty; listed in {path}:3",
        f"{tmp_path}/page.png: not an image; the file starts with b'<html></'; listed in {path}:4",
        f"{tmp_path}/small.png: CropImage cannot cut 224 x 224 (width x height) out of an image of 10 x 8; "
        f"put ResizeImage with a large enough resize_short before it; listed in {path}:5",
    ]
    for index, message in enumerate(expected):
        with pytest.raises(DataError) as caught:
            dataset.sample(index)
        assert str(caught.value) == message


def test_a_list_of_100_000_lines_is_read_in_seconds(write_list):
    path = write_list("".join(f"train/n{n % 1000:08d}/n{n:08d}_{n}.JPEG {n % 1000}\n" for n in range(100_000)))
    start = time.process_time()
    dataset = ImageNetDataset("", path)
    dataset.check_labels(1000)
    assert time.process_time() - start < 5
    assert len(dataset) == 100_000
