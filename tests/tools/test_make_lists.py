# SPDX-License-Identifier: Apache-2.0
"""`tools/make_lists.py` as a person calls it."""

import os
import resource

import cv2
import numpy as np
import pytest
import yaml

from ppcls.data import ImageFolder, ImageNetDataset, Topk

OK, USAGE, DATA, STORAGE = 0, 2, 3, 5
CLASSES = ["cat", "dog or wolf", "猫"]


def write_image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.RandomState(seed).randint(0, 256, (8, 8, 3)).astype(np.uint8)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())


@pytest.fixture
def images(tmp_path):
    """Three class folders of 20 images, some of them in a folder below."""
    for number in range(60):
        folder = tmp_path / "my images" / CLASSES[number % 3]
        write_image(folder / ("below" if number % 4 == 0 else "") / f"第 {number}.png", number)
    return tmp_path / "my images"


@pytest.fixture
def make(process, images):
    """Run the tool: (exit code, stdout, stderr)."""

    def call(*arguments, output="lists"):
        done = process("make_lists", "--images", images, "--output", images.parent / output, *arguments)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    return call


def lines_of(images, name, output="lists"):
    return (images.parent / output / name).read_text("utf-8").splitlines()


def test_lists_and_label_map_can_be_read_back(make, images):
    code, out, err = make("--val", "0.2", "--test", "0.1")
    assert (code, err) == (OK, "")
    folder = images.parent / "lists"
    assert sorted(os.listdir(folder)) == ["label_map.txt", "test_list.txt", "train_list.txt", "val_list.txt"]
    sets = [ImageNetDataset(str(images), str(folder / f"{part}_list.txt")) for part in ("train", "val", "test")]
    assert [dataset.class_counts.tolist() for dataset in sets] == [[14] * 3, [4] * 3, [2] * 3]
    found = {(dataset.path(index), int(label)) for dataset in sets for index, label in enumerate(dataset.labels)}
    expected = ImageFolder(str(images))
    assert found == set(zip(expected.paths, expected.labels.tolist()))
    assert all(dataset.sample(0)[0].shape == (3, 8, 8) for dataset in sets)
    post = Topk(3, str(folder / "label_map.txt"))
    assert post(np.array([[3.0, 2.0, 1.0]]))[0]["label_names"] == CLASSES == expected.class_names
    assert "60 images in 3 classes, seed 0:" in out
    assert f"  {folder}/val_list.txt: 12, 4 to 4 in a class" in out


def test_the_printed_lines_are_those_of_a_configuration(make, images):
    _, out, _ = make()
    folder = images.parent / "lists"
    found = yaml.safe_load(out.partition("in the YAML file:\n")[2])
    assert found == {
        "Arch": {"class_num": 3},
        "DataLoader": {
            part: {"dataset": {"image_root": str(images), "cls_label_path": f"{folder}/{name}_list.txt"}}
            for part, name in (("Train", "train"), ("Eval", "val"))
        },
        "Infer": {"PostProcess": {"class_id_map_file": f"{folder}/label_map.txt"}},
    }


def test_the_seed_decides(make, images):
    lists = {}
    for output, seed in (("one", 3), ("two", 3), ("three", 4)):
        assert make("--seed", seed, output=output)[0] == OK
        lists[output] = lines_of(images, "val_list.txt", output)
    assert lists["one"] == lists["two"] != lists["three"]


def test_lists_that_are_there_stay_unless_forced(make, images):
    make()
    before = lines_of(images, "val_list.txt")
    code, out, err = make("--seed", "1")
    assert (code, out) == (STORAGE, "")
    assert err.startswith(f"{images.parent}/lists/train_list.txt: is there already; choose another --output")
    assert lines_of(images, "val_list.txt") == before
    assert make("--seed", "1", "--force")[0] == OK
    assert lines_of(images, "val_list.txt") != before
    # A list of an earlier division would have images that are trained on now.
    assert make("--val", "0", "--force")[0] == OK
    assert sorted(os.listdir(images.parent / "lists")) == ["label_map.txt", "train_list.txt"]
    assert len(lines_of(images, "train_list.txt")) == 60


def test_on_a_full_disk_the_lists_stay_as_they_were(make, images):
    make()
    before = {name: lines_of(images, name) for name in os.listdir(images.parent / "lists")}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # bytes a file; the tool inherits it
    try:
        code, out, err = make("--seed", "1", "--force")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (code, out) == (STORAGE, "")
    assert err.splitlines() == [f"{images.parent}/lists: cannot be written (File too large)"]
    assert {name: lines_of(images, name) for name in os.listdir(images.parent / "lists")} == before


def test_what_is_no_image_is_left_out_and_named(make, images):
    (images / "cat" / "readme.txt").write_text("x")
    (images / "cat" / "page.jpg").write_text("<html>")
    (images / "cat" / "empty.png").write_text("")
    (images / "cat" / "two\nlines.png").write_bytes((images / "cat" / "below" / "第 0.png").read_bytes())
    (images / "cat" / ".hidden.png").write_text("")
    (images / "notes.txt").write_text("x")
    code, out, _ = make()
    assert code == OK
    assert "files left out: 4:\n" in out
    for name, reason in (
        ("readme.txt", "no image, by its ending"),
        ("page.jpg", "not an image; the file starts with b'<html>'"),
        ("empty.png", "the file is empty"),
        ("two\nlines.png", "its name cannot be written in a list"),
    ):
        assert f"  {images}/cat/{name}: {reason}\n" in out
    assert "60 images in 3 classes" in out


def test_copies_are_in_the_same_list(make, images):
    for number in range(60):
        folder = images / CLASSES[number % 3]
        path = folder / ("below" if number % 4 == 0 else "") / f"第 {number}.png"
        (folder / f"copy {number}.png").write_bytes(path.read_bytes())
    (images / "cat" / "dog.png").write_bytes((images / "dog or wolf" / "第 1.png").read_bytes())
    code, out, _ = make("--val", "0.3")
    assert code == OK
    content = [
        {(images / line.rpartition(" ")[0]).read_bytes() for line in lines_of(images, f"{part}_list.txt")}
        for part in ("train", "val")
    ]
    assert not content[0] & content[1]
    assert len(content[0] | content[1]) == 60
    assert "copies of other images, kept in the same list as those: 61" in out
    assert "warning: copies in another class: " in out


def test_a_class_with_one_image_is_trained_on_with_a_warning(make, images):
    write_image(images / "rare" / "one.png", 99)
    code, out, _ = make()
    assert code == OK
    assert "warning: classes without an image in val_list.txt: 1:\n  rare\n" in out
    assert "rare/one.png 2" in lines_of(images, "train_list.txt")
    code, _, _ = make("--val", "0", "--force")
    assert code == OK


def test_folders_that_are_no_classes_are_refused(process, images):
    base = images.parent
    (base / "parts" / "train").mkdir(parents=True)
    (base / "parts" / "val").mkdir()
    (base / "nothing" / "class").mkdir(parents=True)
    (base / "flat").mkdir()
    for folder, problem in (
        ("gone", "there is no such folder"),
        ("flat", "no class folders in it"),
        ("nothing", "no image in any of the 1 class folders"),
        ("parts", "train, val look like parts, not like classes"),
    ):
        done = process("make_lists", "--images", base / folder, "--output", base / "out")
        assert (done.returncode, done.stdout) == (DATA, "")
        assert done.stderr.startswith(f"--images: {base / folder}: {problem}")
        assert len(done.stderr.splitlines()) == 1
    assert not (base / "out").exists()


def test_lists_are_not_written_among_the_classes(make, images):
    code, _, err = make(output="my images/lists")
    assert code == STORAGE
    assert "would be taken for a class" in err
    assert make(output="my images")[0] == OK


@pytest.mark.parametrize("arguments", [["--val", "1"], ["--val", "0.6", "--test", "0.4"], ["--test", "-1"], ["--x"]])
def test_a_wrong_command_line_is_exit_code_2(make, arguments):
    assert make(*arguments)[0] == USAGE


def test_lists_are_not_written_to_a_url(process, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = process("make_lists", "--images", images, "--output", "s3://bucket/lists")
    assert done.returncode == USAGE
    assert "s3://bucket/lists: lists are written to a folder of this machine" in done.stderr
    assert not list(tmp_path.glob("s3*"))


def test_help_shows_how_it_is_called(process):
    done = process("make_lists", "--help")
    assert done.returncode == OK
    assert "python tools/make_lists.py --images" in done.stdout and "exit code: 0" in done.stdout
