# SPDX-License-Identifier: Apache-2.0
"""List files, read as whole arrays: the same as line by line, whatever is in them."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ppcls.data import ImageNetDataset
from ppcls.data import list_lines as module
from ppcls.data.list_lines import ListFile, parse_line
from ppcls.utils.errors import DataError

TEN = 10


def slowly(data: bytes, delimiter: str | None) -> tuple[list[tuple[str, int, int]], list[int]]:
    """(path, label, line) of the good lines and the numbers of the faulty ones, as a plain loop reads them."""
    good, faulty = [], []
    for number, line in enumerate(data.decode("utf-8-sig").split("\n"), 1):
        line = line.strip()
        if not line:
            continue
        path, _, text = line.rpartition(delimiter) if delimiter else ("", "", "")
        if delimiter is None:
            text = line.split()[-1]
            path = line[: len(line) - len(text)]
        try:
            label = -1 if "_" in text else int(text)
        except ValueError:
            label = -1
        if path.strip() and 0 <= label < 2**63 and "\r" not in line:
            good.append((path.strip(), label, number))
        else:
            faulty.append(number)
    return good, faulty


def quickly(path: str, delimiter: str | None) -> tuple[list[tuple[str, int, int]], list[int]]:
    file = ListFile(path, delimiter, 10**9)
    good = [(text, int(label), file.line(index)) for index, (text, label) in enumerate(zip(file.paths, file.labels))]
    assert file.num_faults == len(file.faults)
    return good, [fault.line for fault in file.faults]


PIECES = [
    *("a.jpg", "b c.jpg", "图像/猫 1.jpg", "写真/猫.jpg", "é", "x\u3000", "\u3000", "\u00a0y", "\u0085"),
    *(" ", "  ", "\t", " \t ", ",", " , ", ";;", "\r", "\x0b", "\x1c", "\r\r", " " * 40),
    *(
        "0",
        "7",
        "12",
        "007",
        "123456789012345678",
        "1234567890123456789",
        "9" * 20,
        "3",
        "+3",
        "1_0",
        "-1",
        "1.5",
        "cat",
    ),
    *("\n", "\n", "\r\n", "\n\n", " \n", "\ufeff"),
]


@pytest.mark.parametrize("delimiter", [None, " ", "\t", ",", ";;", "g", "1"])
@pytest.mark.parametrize("block_bytes", [1, 64, 1 << 22])
def test_any_mixture_is_read_as_line_by_line(tmp_path, monkeypatch, delimiter, block_bytes):
    monkeypatch.setattr(module, "_BLOCK_BYTES", block_bytes)
    draw = random.Random(f"{delimiter}{block_bytes}")
    path = tmp_path / "list.txt"
    for _ in range(150):
        data = "".join(draw.choices(PIECES, k=draw.randint(0, 60))).encode()
        path.write_bytes(data)
        assert quickly(str(path), delimiter) == slowly(data, delimiter), data


@pytest.mark.parametrize("delimiter", [None, " ", "\t", ","])
def test_plain_lines_are_read_as_line_by_line(tmp_path, delimiter):
    draw = random.Random(1)
    path = tmp_path / "list.txt"
    ends = ["\n", "\r\n", " \n", "\n\n"]
    names = ["a.jpg", "folder/b.jpg", "猫/1.jpg", "my photo.png", "ひらがな.jpg"]
    lines = [
        f"{draw.choice(names)}{delimiter or draw.choice([' ', '  ', chr(9)])}{draw.randrange(2000)}{draw.choice(ends)}"
        for _ in range(5000)
    ]
    data = "".join(lines).rstrip("\r\n ").encode()
    path.write_bytes(b"\xef\xbb\xbf" + data)
    good, faulty = quickly(str(path), delimiter)
    assert (good, faulty) == slowly(data, delimiter)
    assert len(good) == 5000


def test_plain_lines_are_not_read_one_by_one(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(module, "parse_line", lambda line, delimiter: read.append(line) or parse_line(line, delimiter))
    path = tmp_path / "list.txt"
    path.write_text("".join(f"图像/n{n % 7}/{n} b.jpg\t{n % 7}\r\n" for n in range(1000)) + "odd.jpg +1", "utf-8")
    assert len(ListFile(str(path), None, 5)) == 1001
    assert read == ["odd.jpg +1"]


def test_a_list_takes_little_memory_and_no_object_per_line(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("".join(f"{n}.jpg 1\n\n" for n in range(TEN**4)))
    file = ListFile(str(path), None, 5)
    arrays = [file.labels, file.paths.starts, file.paths.sizes, file._skipped]
    assert [array.dtype for array in arrays] == [np.int64, np.uint32, np.int32, np.int64]
    assert all(len(array) == TEN**4 for array in arrays)
    assert isinstance(file.paths.buffer, bytes)
    assert not [value for value in vars(file).values() if isinstance(value, list) and len(value) > 5]


def test_an_empty_delimiter_is_refused(tmp_path):
    (tmp_path / "list.txt").write_text("a 1\n")
    with pytest.raises(ValueError, match="delimiter: an empty text"):
        ImageNetDataset("", str(tmp_path / "list.txt"), delimiter="")


def test_several_lists_are_read_as_one(tmp_path):
    (tmp_path / "a.txt").write_text("\na.jpg 5\nb.jpg 3\n")
    (tmp_path / "b.txt").write_text("c.jpg 9\n\n\nd.jpg 3\n")
    files = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    dataset = ImageNetDataset("root", files)
    assert list(dataset.paths) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert dataset.labels.tolist() == [5, 3, 9, 3]
    assert [dataset.where(index) for index in (0, 1, 2, 3, -1)] == [
        *(f"{files[0]}:2", f"{files[0]}:3", f"{files[1]}:1", f"{files[1]}:4", f"{files[1]}:4")
    ]
    assert dataset.path(3) == "root/d.jpg"
    assert dataset.paths[1:3] == ["b.jpg", "c.jpg"]
    assert ImageNetDataset("", files, relabel=True).labels.tolist() == [1, 0, 2, 0]
    assert repr(dataset) == f"ImageNetDataset({files[0]!r}, {files[1]!r}, 4 images, 3 classes)"
    with pytest.raises(IndexError):
        dataset.path(4)
    with pytest.raises(DataError) as caught:
        dataset.check_labels(9)
    assert str(caught.value).startswith(f"{files[1]}:1: label 9 is outside 0..8")


def test_the_faults_of_several_lists_are_told_together(tmp_path):
    (tmp_path / "a.txt").write_text("a.jpg 0\nb.jpg\n")
    (tmp_path / "b.txt").write_text("".join(f"{n}.jpg x\n" for n in range(7)))
    files = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    with pytest.raises(DataError) as caught:
        ImageNetDataset("", files)
    lines = str(caught.value).split("\n")
    assert lines[0] == f"{files[0]}:2: no label in 'b.jpg'"
    assert lines[1] == f"{files[1]}:1: label 'x' is not a whole number"
    assert lines[-1].startswith("and 3 more lines like these; expected: path label")


def test_one_empty_list_among_several_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("a.jpg 0\n")
    (tmp_path / "b.txt").write_text("\n")
    with pytest.raises(DataError, match="b.txt: the list is empty"):
        ImageNetDataset("", [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")])
    with pytest.raises(ValueError, match="at least one list file"):
        ImageNetDataset("", [])


@pytest.mark.promise("F16")
@pytest.mark.parametrize("every", [1000, 1])
def test_each_of_many_missing_files_is_counted(tmp_path, times, every):
    number = times(10_000, 100_000)
    for index in range(number):
        if index % every:
            (tmp_path / f"{index}.jpg").touch()
    (tmp_path / "list.txt").write_text("".join(f"{index}.jpg 0\n" for index in range(number)))
    with pytest.raises(DataError, match=rf"{number // every} of {number} images are missing"):
        ImageNetDataset(str(tmp_path), str(tmp_path / "list.txt"), check_files=True)


@pytest.mark.promise("F16")
def test_missing_files_are_found_at_the_start_if_asked_for(tmp_path):
    (tmp_path / "here.jpg").write_bytes(b"x")
    path = tmp_path / "list.txt"
    path.write_text("here.jpg 0\n" + "".join(f"gone{n}.jpg 1\n" for n in range(6)))
    assert len(ImageNetDataset(str(tmp_path), str(path))) == 7
    with pytest.raises(DataError) as caught:
        ImageNetDataset(str(tmp_path), str(path), check_files=True)
    lines = str(caught.value).split("\n")
    assert lines[0] == f"{path}:2: there is no file {tmp_path}/gone0.jpg"
    assert lines[5:] == [
        f"and 1 more lines like these; 6 of 7 images are missing; mend image_root ({tmp_path}) or the list"
    ]
    path.write_text("here.jpg 0\n")
    assert len(ImageNetDataset(str(tmp_path), str(path), check_files=True)) == 1


FAULTS = {
    "negative": ("b.jpg -1", "label -1 is negative"),
    "far too large": (f"b.jpg {10**19}", f"label {10**19} is too large"),
    "beyond class_num": ("b.jpg 10", "label 10 is outside 0..9 (Arch.class_num is 10); set Arch.class_num to 11"),
    "far beyond class_num": (f"b.jpg {10**18}", f"label {10**18} is outside 0..9"),
    "float": ("b.jpg 1.0", "label '1.0' is not a whole number"),
    "exponent": ("b.jpg 1e3", "label '1e3' is not a whole number"),
    "underscore": ("b.jpg 1_0", "label '1_0' is not a whole number"),
    "text": ("b.jpg cat", "label 'cat' is not a whole number"),
    "hexadecimal": ("b.jpg 0x1", "label '0x1' is not a whole number"),
    "nan": ("b.jpg nan", "label 'nan' is not a whole number"),
    "minus alone": ("b.jpg -", "label '-' is not a whole number"),
    "several labels": ("b.jpg 1,2", "label '1,2' is not a whole number"),
    "no label": ("b.jpg", "no label in 'b.jpg'"),
    "no path": ("7", "no label in '7'"),
    "another delimiter": ("b.jpg,7", "no label in 'b.jpg,7'"),
    "label first": ("7 b.jpg", "label 'b.jpg' is not a whole number"),
    "header row": ("path label", "label 'label' is not a whole number"),
    "comment": ("# images of 2024-05-01", "label '2024-05-01' is not a whole number"),
    "old Macintosh line ends": ("b.jpg 7\rc.jpg 8", "a carriage return within 'b.jpg 7\\rc.jpg 8'; end lines with"),
    "Latin-1": (b"Gr\xf6\xdfe.jpg 7", "not UTF-8; store the list file as UTF-8"),
    "binary": (b"\x89PNG\r\n\x1a\n\x00\x00 7", "not UTF-8; store the list file as UTF-8"),
    "UTF-16": ("b.jpg 7".encode("utf-16"), "not UTF-8; store the list file as UTF-8"),
}


@pytest.mark.promise("F17")
@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("line_number", [1, 3])
def test_a_faulty_list_is_refused_with_file_line_value_and_remedy(tmp_path, name, line_number):
    line, problem = FAULTS[name]
    path = tmp_path / "train.txt"
    good = [f"{n}.jpg {n % 10}".encode() for n in range(100)]
    good.insert(line_number - 1, line if isinstance(line, bytes) else line.encode())
    path.write_bytes(b"\n".join(good))
    with pytest.raises(DataError) as caught:
        ImageNetDataset("", str(path)).check_labels(10)
    message = str(caught.value)
    assert message.startswith(f"{path}:{line_number}: {problem}")
    assert any(remedy in message for remedy in ("; expected: path label", "; store the list file as", "; set Arch."))


@pytest.mark.parametrize("line", ["b.jpg 7", "\ufeffb.jpg 7", "b.jpg 7\r", "b.jpg\t \t7 ", "\n\n b.jpg 007"])
def test_what_other_programs_write_is_no_fault(tmp_path, line):
    path = tmp_path / "train.txt"
    path.write_bytes(f"{line}\nc.jpg 1".encode())
    dataset = ImageNetDataset("", str(path))
    assert (list(dataset.paths), dataset.labels.tolist()) == (["b.jpg", "c.jpg"], [7, 1])


def test_a_long_faulty_line_is_shown_in_part(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("x" * 10**5)
    with pytest.raises(DataError) as caught:
        ImageNetDataset("", str(path))
    assert len(str(caught.value)) < 400
