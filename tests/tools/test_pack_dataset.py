# SPDX-License-Identifier: Apache-2.0
"""`tools/pack_dataset.py` as a person calls it."""

import shutil

import pytest
import toys


@pytest.fixture
def data(tmp_path):
    return toys.write_data(tmp_path / "data")


def test_a_list_is_packed_verified_and_unpacked(process, data, tmp_path):
    arguments = ("--image_root", data, "--cls_label_path", data / "train.txt", "-o", tmp_path / "x.pack")
    done = process("pack_dataset", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    num_images = len((data / "train.txt").read_text().splitlines())
    line = f"{tmp_path}/x.pack: {num_images} images, 4 classes, "
    assert done.stdout.startswith(line)
    done = process("pack_dataset", "--verify", tmp_path / "x.pack")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(line)
    assert "; sound, digest " in done.stdout
    done = process("pack_dataset", "--unpack", tmp_path / "x.pack", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out" / "list.txt").read_text() == (data / "train.txt").read_text()
    done = process("pack_dataset", *arguments, "--resize_short", 8)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{tmp_path}/x.pack: is there already, with resize_short None, not 8; ")


def test_a_damaged_pack_is_not_sound(process, data, tmp_path):
    pack = tmp_path / "x.pack"
    assert process("pack_dataset", "--image_root", data / "images", "-o", pack).returncode == 0
    content = bytearray(pack.read_bytes())
    content[700] ^= 1
    pack.write_bytes(content)
    done = process("pack_dataset", "--verify", pack)
    assert (done.returncode, done.stdout) == (3, "")
    first, last = done.stderr.splitlines()
    assert first.startswith(f"{pack}: image 0, 0/") and "altered" in first
    assert last.startswith(f"{pack}: 1 of ")
    pack.write_bytes(content[:-1])
    done = process("pack_dataset", "--verify", pack)
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
    assert "cut off" in done.stderr


def test_bad_images_end_it_or_are_left_out_by_name(process, data, tmp_path):
    images = shutil.copytree(data / "images", tmp_path / "images")
    bad = sorted((images / "1").iterdir())[1]
    bad.write_bytes(b"no image")
    arguments = ("--image_root", images, "-o", tmp_path / "x.pack")
    done = process("pack_dataset", *arguments)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (3, "", 1)
    assert done.stderr.startswith(f"{bad}: ")
    done = process("pack_dataset", *arguments, "--on_bad", "skip")
    assert done.returncode == 0
    going_on, left_out = done.stderr.splitlines()
    assert "going on behind the first" in going_on
    assert left_out.startswith(f"left out: {bad}: ")
    assert ", 1 left out, " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "one of the arguments -o/--output --verify --unpack is required"),
        (("-o", "x.pack"), "-o needs --image_root"),
        (("--verify", "x.pack", "--image_root", "y"), "take nothing else"),
        (("-o", "x.pack", "--image_root", "y", "--quality", "80"), "add --resize_short"),
        (("-o", "x.pack", "--image_root", "y", "--resize_short", "0"), "0 is outside 1.."),
        (("-o", "x.pack", "--image_root", "/none/such"), "/none/such: cannot be read"),
        (("-o", "/proc/x.pack", "--image_root", "DATA"), "/proc/x.pack.partial: cannot be written"),
        (("--unpack", "none.pack", "out"), "none.pack: cannot be read"),
        (("-o", "x.pack", "--image_root", "y", "--delimiter", ""), "--delimiter: an empty text"),
        (("-o", "", "--image_root", "y"), "an empty name"),
        (("--verify", ""), "an empty name"),
        (("-o", "s3://bucket/x.pack", "--image_root", "DATA"), "s3://bucket/x.pack: packs are written and read on a"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(process, data, arguments, expected):
    done = process("pack_dataset", *(data / "images" if item == "DATA" else item for item in arguments))
    assert done.returncode in (2, 3, 5)
    assert expected in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
