# SPDX-License-Identifier: Apache-2.0
"""`tools/check_data.py` as a person calls it, and what it is made of."""

import json
import os
import select
import shutil
import signal
import time
from multiprocessing import active_children, get_context

import cv2
import numpy as np
import pytest
import toys

from ppcls.data import ImageFolder
from ppcls.data.check import Checker, Opened, open_list
from ppcls.data.check.cache import Cache
from ppcls.data.check.fault import FAULTS, KINDS, NOTES
from ppcls.data.check.look import Look, look_at
from ppcls.data.check.processes import in_processes
from ppcls.utils.errors import StorageError

OK, USAGE, DATA, STORAGE = 0, 2, 3, 5


@pytest.fixture
def folder(tmp_path):
    """20 images of 4 classes in ``train.txt``, 8 in ``val.txt``."""
    return toys.write_data(tmp_path, 20, 8)


@pytest.fixture
def check(process, folder):
    """Run the tool on the two lists: (exit code, stdout, stderr, the records of its report)."""

    def call(*arguments, lists=("train.txt", "val.txt"), class_num=4):
        report = folder / "report.jsonl"
        command = ["--list", *(folder / name for name in lists), "--class_num", class_num, "--report", report]
        done = process("check_data", *command, "--cache", folder / "cache", "--workers", 2, *arguments)
        records = [json.loads(line) for line in report.read_text("utf-8").splitlines()] if report.exists() else []
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr, records

    return call


def add(path, text):
    path.write_text(path.read_text("utf-8") + text, "utf-8")


def noise(path, seed, size=16):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.RandomState(seed).randint(0, 256, (size, size, 3)).astype(np.uint8)
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())


def test_good_data_have_no_faults(check):
    code, out, err, records = check()
    assert (code, err, records) == (OK, "", [])
    assert "20 images in 4 classes; in a class 5 (label 0) to 5 (label 0), median 5" in out
    assert "28 images looked at (0 known from earlier)" in out
    assert out.endswith("no faults\n")


def test_what_is_known_is_not_looked_at_again_until_it_changes(check, folder):
    check()
    assert "28 images looked at (28 known from earlier)" in check()[1]
    path = folder / "images" / "1" / "001.png"
    path.write_bytes(path.read_bytes()[:60])
    code, out, err, records = check()
    assert code == DATA
    assert "(27 known from earlier)" in out
    assert [record["kind"] for record in records] == ["damaged"]
    # A fault is known again, too.
    assert check()[3] == records


def every_fault(folder):
    """Put one fault of each kind into the data: kind -> (where it is, part of what is said of it)."""
    train, val = folder / "train.txt", folder / "val.txt"
    (folder / "images" / "0" / "000.png").unlink()
    (folder / "images" / "1" / "005.png").write_bytes(b"<html>")
    shutil.copy(folder / "images" / "2" / "002.png", folder / "images" / "3" / "copy.png")
    shutil.copy(folder / "images" / "2" / "006.png", folder / "images" / "2" / "copy.png")
    noise(folder / "extra" / "1" / "a.png", 1)
    noise(folder / "extra" / "1" / "b.png", 2)
    add(train, "images/2/010.png 1\n")  # line 21
    add(train, "images/3/copy.png 3\n")
    add(train, "images/2/copy.png 2\n")
    add(train, "images/3/003.png cat\n")  # line 24
    add(train, "images/3/003.png 6\n")
    add(train, "extra/e/a.png 1\n".replace("/e/", "/1/"))
    add(val, "images/1/001.png 1\n")  # line 9
    add(val, "images/2/022.png 2\n")
    return {
        "list": (f"{train}:24", "label 'cat' is not a whole number"),
        "label": (f"{train}:25", "label 6 is outside 0..4"),
        "class": (str(train), "class 4 has no image"),
        "missing": (f"{train}:1", "cannot be read (No such file or directory)"),
        "damaged": (f"{train}:6", "not an image; the file starts with b'<html>'"),
        "conflict": (f"{train}:21", f"also {train}:11, label 2"),
        "conflicting_copy": (f"{train}:22", f"also {train}:3, label 2"),
        "leak": (f"{val}:9", f"also {train}:2, label 1"),
        "copy": (f"{train}:23", f"also {train}:7, label 2"),
        "repeat": (f"{val}:10", f"also {val}:3, label 2"),
        "empty_class": (str(val), "class 4 has no image"),
    }


def test_each_kind_of_fault_is_found_with_its_place(check, folder):
    expected = every_fault(folder)
    code, out, err, records = check(class_num=5)
    assert code == DATA
    found = {kind: [record for record in records if record["kind"] == kind] for kind in expected}
    for kind, (where, problem) in expected.items():
        assert any(record["where"] == where and problem in record["problem"] for record in found[kind]), kind
        assert f"{where}: " in out and problem in out
        assert all(record["is_fault"] == (kind in FAULTS) for record in found[kind])
    # The line with another label than the class's is a conflict with its own file.
    assert {kind: len(faults) for kind, faults in found.items()} == {**dict.fromkeys(expected, 1), "conflict": 2}
    assert err.strip().startswith(
        "9 faults: 1 list, 1 label, 1 class, 1 missing, 1 damaged, 2 conflict, 1 conflicting_copy, 1 leak; "
    )
    missing = found["missing"][0]
    assert missing["path"] == str(folder / "images" / "0" / "000.png")
    assert (missing["label"], missing["split"]) == (0, str(folder / "train.txt"))


def test_a_kind_of_fault_can_be_allowed(check, folder):
    (folder / "images" / "0" / "000.png").unlink()
    assert check()[0] == DATA
    code, out, err, _ = check("--allow", "missing")
    assert (code, err) == (OK, "")
    assert "note, missing (1): files that are not there" in out
    code, _, err, _ = check("--allow", "mising")
    assert code == USAGE
    assert err.startswith("--allow mising: no kind of fault; there are list, label, ")


def test_many_faults_are_shown_in_part_and_counted(check, folder):
    (folder / "train.txt").write_text("".join(f"gone/{n}.png {n % 4}\n" for n in range(30)))
    code, out, err, records = check(lists=["train.txt"])
    assert code == DATA
    assert out.count("cannot be read") == 10
    assert "and 20 more; --all shows them" in out
    assert "none of the files is there" in out
    assert len(records) == 30
    assert err.startswith("30 faults: 30 missing")
    assert check("--all", lists=["train.txt"])[1].count("cannot be read") == 30


def test_the_fast_check_decodes_nothing_and_finds_what_is_no_image(check, folder):
    first, second = sorted((folder / "images" / "3").iterdir())[:2]
    jpeg = cv2.imencode(".jpg", cv2.imread(str(first)))[1].tobytes()
    # The header is whole, the image is not.
    first.write_bytes(jpeg[: len(jpeg) // 2])
    second.write_bytes(b"")
    assert [record["kind"] for record in check()[3]] == ["damaged", "damaged"]
    code, out, _, records = check("--fast")
    assert [record["path"] for record in records] == [str(second)]
    assert code == DATA
    assert "their beginnings only" in out


def test_folders_that_mean_other_classes_in_another_list_are_found(check, folder):
    lines = (folder / "val.txt").read_text().splitlines()
    swapped = {"2": "3", "3": "2"}
    (folder / "val.txt").write_text("".join(f"{line[:-1]}{swapped.get(line[-1], line[-1])}\n" for line in lines))
    code, out, _, records = check()
    assert code == DATA
    assert sorted(record["problem"] for record in records) == [
        f"folder 2 has label 3 here, but 2 in {folder}/train.txt:3",
        f"folder 3 has label 2 here, but 3 in {folder}/train.txt:4",
    ]
    assert {record["kind"] for record in records} == {"mapping"}


def test_copies_in_both_lists_under_other_names_are_leaks(check, folder):
    shutil.copy(folder / "images" / "1" / "001.png", folder / "images" / "1" / "other name.png")
    add(folder / "val.txt", "images/1/other name.png 1\n")
    records = check()[3]
    assert [(record["kind"], record["where"]) for record in records] == [("leak", f"{folder}/val.txt:9")]
    assert records[0]["problem"] == f"also {folder}/train.txt:2, label 1"


def test_faulty_lists_are_told_and_the_others_checked(check, folder):
    (folder / "val.txt").write_text("\n")
    code, out, _, records = check()
    assert code == DATA
    assert [(record["kind"], record["problem"]) for record in records] == [("list", "the list is empty")]
    assert "20 images looked at" in out
    code, _, err, records = check(lists=["train.txt", "gone.txt"])
    assert code == DATA
    assert "No such file" in records[0]["problem"]


def test_a_configuration_is_checked_with_its_class_num(process, folder):
    config = toys.write_yaml(folder, folder)
    command = ["-c", config, "-o", "Arch.class_num=3", "-o", f"Global.cache_dir={folder}/kept"]
    done = process("check_data", *command)
    assert done.returncode == DATA
    assert f"{folder}/train.txt:4: {folder}/images/3/003.png: label 3 is outside 0..2" in done.stdout
    assert done.stdout.startswith("Train: ") and "\nEval: " in done.stdout
    assert done.stderr == "7 faults: 7 label\n"
    assert [path.name for path in (folder / "kept").iterdir()] == ["check_data.sqlite"]


def test_other_kinds_of_data_sets_are_checked_too(process, folder):
    config = toys.write_yaml(folder, folder)
    (folder / "images" / "1" / "005.png").write_bytes(b"")
    folders = f"{{name: ImageFolder, image_root: {folder}/images}}"
    command = ["-c", config, "-o", f"DataLoader.Train.dataset={folders}", "-o", "DataLoader.Eval=null"]
    done = process("check_data", *command, "--cache", folder / "cache", "--counts")
    assert done.returncode == DATA
    assert f"\n  {folder}/images/1/005.png: the file is empty\n" in done.stdout
    assert "\n       1         7  1\n" in done.stdout


def test_a_wrong_command_line_is_exit_code_2(process, folder):
    assert process("check_data").returncode == USAGE
    assert process("check_data", "--list", "a", "-c", "b").returncode == USAGE
    assert process("check_data", "--list", "a", "--class_num", "0").returncode == USAGE
    assert process("check_data", "-c", "b", "--root", "c").returncode == USAGE
    assert process("check_data", "--list", folder / "train.txt", "--delimiter", "").returncode == USAGE
    done = process("check_data", "-c", folder / "gone.yaml")
    assert done.returncode == USAGE
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no disk that is always full")
def test_a_report_on_a_full_disk_is_named(process, folder):
    done = process("check_data", "--list", folder / "train.txt", "--class_num", 2, "--report", "/dev/full", "--fast")
    assert done.returncode == STORAGE
    assert done.stderr.splitlines() == ["/dev/full: cannot be written (No space left on device)"]


def test_help_shows_how_it_is_called(process):
    done = process("check_data", "--help")
    assert done.returncode == OK
    assert "python tools/check_data.py -c" in done.stdout and "exit code: 0" in done.stdout


def test_a_file_that_is_no_cache_is_left_alone(check, folder):
    before = (folder / "train.txt").read_bytes()
    code, _, err, _ = check("--cache", folder / "train.txt")
    assert code == STORAGE
    assert err.startswith(f"{folder}/train.txt: cannot be used as a cache")
    assert (folder / "train.txt").read_bytes() == before


def test_a_cache_gives_back_what_it_was_given(tmp_path):
    looks = {
        "a": Look(None, 2**64 - 1, "cmyk turned"),
        "b": Look("the file is empty", 2**63),
        "c": Look(None, 1),
        "d": Look("cannot be read", is_lasting=False),
    }
    states = {path: (position, 10**18 + position) for position, path in enumerate(looks)}
    cache = Cache(tmp_path / "sub" / "cache")
    cache.keep((path, states[path], look) for path, look in looks.items())
    cache.close()
    cache = Cache(tmp_path / "sub" / "cache")
    kept = {path: look for path, look in looks.items() if path != "d"}
    assert cache.find({**states, "other": (1, 1)}) == kept
    assert cache.find({path: (size, time + 1) for path, (size, time) in states.items()}) == {}
    many = {f"{number}": (number, number) for number in range(2000)}
    cache.keep((path, state, Look(None, state[0])) for path, state in many.items())
    assert {path: look.digest for path, look in cache.find(many).items()} == {path: int(path) for path in many}
    cache.close()
    (tmp_path / "foreign").write_bytes(b"SQLite format 3\0" + b"\0" * 100)
    with pytest.raises(StorageError, match="cannot be used as a cache"):
        Cache(tmp_path / "foreign")


def test_unusual_images_are_noted(tmp_path):
    image = pytest.importorskip("PIL.Image")
    rgb = image.fromarray(np.random.RandomState(0).randint(0, 256, (8, 9, 3)).astype(np.uint8))
    turned = image.Exif()
    turned[0x0112] = 6
    rgb.save(tmp_path / "plain.jpg")
    rgb.convert("CMYK").save(tmp_path / "cmyk.jpg")
    rgb.convert("RGBA").save(tmp_path / "transparent.png")
    rgb.save(tmp_path / "turned.jpg", exif=turned)
    rgb.save(tmp_path / "animated.gif", save_all=True, append_images=[rgb.rotate(90)])
    image.fromarray(np.arange(72, dtype=np.uint16).reshape(8, 9) * 900).save(tmp_path / "deep.png")
    for path in tmp_path.iterdir():
        look = look_at(path.read_bytes())
        assert look.problem is None
        assert look.traits == ("" if path.stem == "plain" else path.stem)
        assert path.stem == "plain" or path.stem in NOTES


def die_of(number, worst):
    if number == worst:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def test_a_process_that_dies_costs_one_piece_of_work():
    results = dict(in_processes(lambda number: die_of(number, 17), range(40), 2, lambda number: "dead"))
    assert results == {number: "dead" if number == 17 else number * number for number in range(40)}


def test_no_work_is_lost_when_a_process_dies_while_a_result_is_used():
    results = {}
    for number, result in in_processes(lambda number: die_of(number, 5), range(40), 2, lambda number: "dead"):
        results[number] = result
        if len(results) == 1:
            # The pool ends its other process as well when it has found that it is broken.
            deadline = time.monotonic() + 300
            while active_children():
                assert time.monotonic() < deadline
                time.sleep(0.01)
    assert results == {number: "dead" if number == 5 else number * number for number in range(40)}


def test_processes_end_with_the_one_that_waits():
    def start_and_die():
        parent = os.getpid()
        list(in_processes(lambda number: os.kill(parent, signal.SIGKILL), range(40), 2, lambda number: None))

    # Every process forked from now on holds the writing end of the pipe until it ends.
    reading, writing = os.pipe()
    process = get_context("fork").Process(target=start_and_die)
    process.start()
    os.close(writing)
    process.join(100)
    assert process.exitcode == -signal.SIGKILL
    assert select.select([reading], [], [], 100)[0] == [reading]
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_no_process_is_started_that_has_nothing_to_do():
    running = set()
    for _ in in_processes(abs, range(3), 50, abs):
        running.update(active_children())
    assert 1 <= len(running) <= 3


def test_an_image_that_the_decoder_dies_of_is_named(folder, monkeypatch):
    opened = open_list("Train", str(folder), str(folder / "train.txt"))
    dataset, parent = opened.dataset, os.getpid()
    read = dataset.read

    def deadly(index):
        if index == 7:
            assert os.getpid() != parent
            os.kill(os.getpid(), signal.SIGKILL)
        return read(index)

    monkeypatch.setattr(dataset, "read", deadly)
    faults = list(Checker([opened], 4, 2).images())
    assert [str(fault) for fault in faults] == [
        f"{folder}/train.txt:8: {folder}/images/3/007.png: the decoder crashes on it; remove it, or store it anew"
    ]


def test_class_folders_that_the_training_set_lacks_are_found(folder):
    for name in ("one", "two"):
        shutil.copytree(folder / "images", folder / name)
    shutil.copytree(folder / "two" / "0", folder / "two" / "zebra")
    opened = [Opened(name, ImageFolder(str(folder / name))) for name in ("one", "two")]
    faults = [str(fault) for fault in Checker(opened, None, 0).labels()]
    assert len(faults) == 1
    assert "the class 'zebra' (1 such) is not one of the 4" in faults[0]


def test_every_kind_is_explained():
    assert set(KINDS) == set(FAULTS) | set(NOTES) and not set(FAULTS) & set(NOTES)


def test_training_says_at_its_start_what_looks_wrong(tool, run_folder):
    data = run_folder / "data"
    add(data / "train.txt", "images/1/001.png 2\n")
    add(data / "val.txt", "images/0/000.png 0\n")
    code, out, _ = tool("train", "Global.epochs=1")
    assert code == OK
    assert f"such as 1 in {data}/train.txt:2 and 2 in {data}/train.txt:41" in out
    assert f"DataLoader.Eval: 1 of 25 images are trained on too, such as that of {data}/val.txt:25" in out
