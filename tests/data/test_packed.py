# SPDX-License-Identifier: Apache-2.0
"""One file for a whole data set: what goes in comes out, and what is damaged is never an image."""

import hashlib
import os
import pickle
import random
import select
import shutil
import signal
import subprocess
import sys
import zipfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import pytest

from ppcls.data import ImageFolder, ImageNetDataset, Loader, PackedDataset
from ppcls.data.pack import HEADER_BYTES, Pack, unpack
from ppcls.data.pack_encoder import Shrinking, shrunk
from ppcls.data.pack_writer import write_pack
from ppcls.data.sampler import DistributedBatchSampler
from ppcls.data.transforms import decode_image
from ppcls.data.transforms.geometry import ResizeImage
from ppcls.utils.errors import ConfigError, DataError, PeerError, StorageError

ROOT = Path(__file__).resolve().parents[2]
NUM_IMAGES = 24
AS_IT_IS = Shrinking()


def smooth_image(index, height, width):
    """Colours that change slowly, different for each index: JPEG keeps them within a few levels."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [
        index * 10 % 200 + 50 * y / height,
        200 - 100 * x / width,
        20 + 5 * index + 40 * (x + y) / (height + width),
    ]
    return np.stack(planes, axis=-1).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    """``images/<class>/*.jpg`` and ``list.txt``, whose order is not the folder's; sizes differ."""
    root = tmp_path / "images"
    lines = []
    for index in range(NUM_IMAGES):
        name = f"class {index % 3}/图片{index:02d}.{'png' if index % 5 == 4 else 'jpg'}"
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = smooth_image(index, 20 + index, 60 - index)
        path.write_bytes(cv2.imencode(path.suffix, image[:, :, ::-1])[1].tobytes())
        lines.insert(index // 2, f"{name} {index % 3}\n")
    (tmp_path / "list.txt").write_text("".join(lines), encoding="utf-8")
    return tmp_path


def listed(folder):
    return ImageNetDataset(str(folder / "images"), str(folder / "list.txt"))


def pack(source, target, shrinking=AS_IT_IS, num_workers=0, on_bad="error", commit_images=5):
    """Pack; return after how many images it began."""
    steps = write_pack(source, source.image_root, target, shrinking, num_workers, on_bad, commit_images)
    return list(steps)[0]


@pytest.fixture
def packed(folder):
    pack(listed(folder), folder / "x.pack")
    return folder / "x.pack"


def damaged_images(path):
    return [problem for _, problem in Pack(path).damaged() if problem]


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


# What goes in comes out


def test_a_list_comes_out_in_its_order_with_its_bytes_labels_and_paths(folder, packed):
    source, dataset = listed(folder), PackedDataset(str(packed))
    assert len(dataset) == len(source) == NUM_IMAGES
    assert [dataset.read(index) for index in range(NUM_IMAGES)] == [source.read(index) for index in range(NUM_IMAGES)]
    assert dataset.labels.dtype == np.int64
    first = (folder / "list.txt").read_text("utf-8").splitlines()[0].rsplit(" ", 1)[0]
    assert dataset.where(0) == f"{packed}: image 0, {first}"
    assert damaged_images(packed) == []


def test_a_folder_of_classes_is_packed_with_their_names(folder):
    source = ImageFolder(str(folder / "images"))
    pack(source, folder / "x.pack")
    dataset = PackedDataset(str(folder / "x.pack"))
    assert dataset.class_names == ["class 0", "class 1", "class 2"]
    assert dataset.labels.tolist() == source.labels.tolist()
    assert dataset.read(0) == source.read(0)
    dataset.use_class_names(["class 2", "class 1", "class 0"])
    assert dataset.labels.tolist() == (2 - source.labels).tolist()


def test_what_is_unpacked_is_what_was_packed(folder, packed):
    assert sum(unpack(Pack(packed), folder / "again")) == sum(len(listed(folder).read(i)[0]) for i in range(NUM_IMAGES))
    assert (folder / "again" / "list.txt").read_bytes() == (folder / "list.txt").read_bytes()
    for path in (folder / "images").rglob("*.*"):
        assert (folder / "again" / path.relative_to(folder / "images")).read_bytes() == path.read_bytes()
    pack(ImageNetDataset(str(folder / "again"), str(folder / "again" / "list.txt")), folder / "y.pack")
    assert sha256(folder / "y.pack") == sha256(packed)


def test_paths_that_lead_out_of_the_folder_are_unpacked_within_it(folder):
    image = folder / "images" / "class 0" / "图片00.jpg"
    (folder / "list.txt").write_text(f"{image} 4\nclass 1/../class 0/图片00.jpg 5\n", encoding="utf-8")
    pack(listed(folder), folder / "x.pack")
    list(unpack(Pack(folder / "x.pack"), folder / "deep" / "out"))
    shutil.move(folder / "images", folder / "elsewhere")
    again = ImageNetDataset(str(folder / "deep" / "out"), str(folder / "deep" / "out" / "list.txt"))
    assert [again.read(index)[1] for index in range(2)] == [4, 5]
    assert [path.name for path in (folder / "deep").iterdir()] == ["out"]


def test_a_pack_is_unpacked_into_the_folder_one_is_in(folder, packed, monkeypatch):
    (folder / "here").mkdir()
    monkeypatch.chdir(folder / "here")
    list(unpack(Pack(packed), "."))
    assert (folder / "here" / "list.txt").read_text() == (folder / "list.txt").read_text()


@pytest.mark.parametrize("place", [".", "/"])
def test_a_folder_without_a_name_that_holds_something_is_refused(folder, packed, monkeypatch, place):
    monkeypatch.chdir(folder / "images")
    with pytest.raises(StorageError, match="not an empty folder"):
        list(unpack(Pack(packed), place))


def test_a_folder_that_holds_something_is_not_unpacked_into(folder, packed):
    with pytest.raises(StorageError, match="not an empty folder"):
        list(unpack(Pack(packed), folder / "images"))


def test_larger_images_are_shrunk_and_all_others_stay_as_they_are(folder):
    pack(listed(folder), folder / "x.pack", Shrinking(30))
    source, dataset = listed(folder), PackedDataset(str(folder / "x.pack"))
    num_shrunk = 0
    for index in range(NUM_IMAGES):
        original, data = source.read(index)[0], dataset.read(index)[0]
        height, width = decode_image(original).shape[:2]
        if min(height, width) <= 30:
            assert data == original
            continue
        num_shrunk += 1
        assert data[:2] == b"\xff\xd8"
        scale = 30 / min(height, width)
        assert decode_image(data).shape == (max(30, round(height * scale)), max(30, round(width * scale)), 3)
    assert num_shrunk == sum(min(20 + index, 60 - index) > 30 for index in range(NUM_IMAGES)) > 0


def test_a_shrunk_image_is_the_mean_of_what_it_stands_for():
    image = smooth_image(3, 160, 240)
    blocks = image.reshape(80, 2, 120, 2, 3).astype(np.float64).mean(axis=(1, 3))
    assert np.abs(decode_image(shrunk(image, 80, 90)) - blocks).mean() < 1.5


def test_a_photo_that_lies_on_its_side_is_shrunk_upright(tmp_path):
    from PIL import Image

    image = smooth_image(1, 40, 80)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    Image.fromarray(image).save(tmp_path / "a.jpg", exif=exif, quality=95)
    (tmp_path / "list.txt").write_text("a.jpg 0\n")
    pack(ImageNetDataset(str(tmp_path), str(tmp_path / "list.txt")), tmp_path / "x.pack", Shrinking(20))
    upright = cv2.resize(np.rot90(image, -1), (20, 40), interpolation=cv2.INTER_AREA)
    decoded = decode_image(Pack(tmp_path / "x.pack").read(0))
    assert decoded.shape == (40, 20, 3)
    assert np.abs(decoded.astype(int) - upright).mean() < 3


@pytest.mark.parametrize("shrinking", [AS_IT_IS, Shrinking(30, 80)])
def test_the_number_of_workers_changes_nothing(folder, shrinking):
    for num_workers in (0, 2):
        pack(listed(folder), folder / f"{num_workers}.pack", shrinking, num_workers)
    assert sha256(folder / "0.pack") == sha256(folder / "2.pack")


def test_batches_of_a_pack_are_those_of_its_images_with_any_number_of_workers(folder, packed):
    batches = {}
    ops = [ResizeImage(size=16)]
    files = ImageNetDataset(str(folder / "images"), str(folder / "list.txt"), ops)
    for name, dataset in (("files", files), ("pack", PackedDataset(str(packed), ops))):
        for num_workers in (0, 2):
            sampler = DistributedBatchSampler(batch_size=5, shuffle=True, num_samples=len(dataset), seed=3)
            loader = Loader(dataset, sampler, num_workers=num_workers)
            batches[name, num_workers] = [(i.numpy().tobytes(), y.tolist()) for i, y in loader]
    first = batches.pop(("files", 0))
    assert all(other == first for other in batches.values())


def _digest_of(dataset, index):
    return hashlib.sha256(dataset.read(index)[0]).hexdigest()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_read_at_the_same_time(packed, method):
    dataset = PackedDataset(str(packed))
    expected = [_digest_of(dataset, index) for index in range(NUM_IMAGES)]
    with ProcessPoolExecutor(2, get_context(method)) as pool:
        tasks = [pool.submit(_digest_of, dataset, index) for index in [*range(NUM_IMAGES)] * 5]
        assert [task.result(timeout=300) for task in tasks] == expected * 5


def test_a_pickled_pack_opens_its_file_again(packed):
    again = pickle.loads(pickle.dumps(PackedDataset(str(packed))))  # noqa: S301 (as spawned workers do)
    assert again.read(3) == PackedDataset(str(packed)).read(3)


def test_a_pack_may_lie_in_an_archive(packed, tmp_path, monkeypatch):
    monkeypatch.setenv("PPCLS_CACHE", str(tmp_path / "cache"))
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.write(packed, "data/x.pack")
    assert len(PackedDataset(f"{tmp_path}/data.zip!/data/x.pack")) == NUM_IMAGES


def test_relabel_numbers_the_labels_that_occur(folder):
    images = sorted(path.relative_to(folder / "images") for path in (folder / "images").rglob("*.jpg"))[:4]
    lines = [f"{path} {label}\n" for path, label in zip(images, (70, 5, 5, 900))]
    (folder / "list.txt").write_text("".join(lines), encoding="utf-8")
    pack(listed(folder), folder / "x.pack")
    dataset = PackedDataset(str(folder / "x.pack"))
    with pytest.raises(DataError, match=r"x\.pack: image 0, .*: label 70 is outside 0\.\.3 ") as problem:
        dataset.check_labels(4)
    assert str(problem.value).endswith("set Arch.class_num to 901, or set relabel to True")
    relabelled = PackedDataset(str(folder / "x.pack"), relabel=True)
    assert relabelled.labels.tolist() == [1, 0, 0, 2]
    assert relabelled.read(3)[1] == 2
    relabelled.check_labels(3)


# Going on where it stopped


class Killed(ImageNetDataset):
    """Its process ends without a word when a certain image is asked for."""

    def __init__(self, folder, victim):
        super().__init__(str(folder / "images"), str(folder / "list.txt"))
        self.victim = victim

    def read(self, index):
        if index == self.victim:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(index)


@pytest.mark.parametrize("victim", [0, 1, 5, 12, NUM_IMAGES - 1])
def test_after_kill_9_the_pack_goes_on_and_ends_the_same(folder, packed, victim):
    process = get_context("fork").Process(target=pack, args=(Killed(folder, victim), folder / "y.pack"))
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    assert not (folder / "y.pack").exists()
    if (folder / "y.pack.partial").exists():
        with pytest.raises(DataError, match="unfinished"):
            Pack(folder / "y.pack.partial")
    assert pack(listed(folder), folder / "y.pack") == victim // 5 * 5
    assert sha256(folder / "y.pack") == sha256(packed)
    assert sorted(path.name for path in folder.glob("y.pack*")) == ["y.pack"]


@pytest.mark.parametrize("step", ["fsync", "replace", "unlink", "ftruncate"])
def test_after_a_stop_at_any_system_call_the_pack_goes_on_and_ends_the_same(folder, packed, monkeypatch, step):
    real = getattr(os, step)
    for number in range(100):
        calls = 0

        def stop(*arguments, number=number):
            nonlocal calls
            calls += 1
            if calls > number:
                # Like a machine that is switched off, no later call is made either.
                raise SystemError("switched off")
            return real(*arguments)

        monkeypatch.setattr(os, step, stop)
        try:
            pack(listed(folder), folder / "y.pack")
        except SystemError:
            continue
        finally:
            monkeypatch.undo()
        break
    assert 0 < number < 99
    pack(listed(folder), folder / "y.pack")
    assert sha256(folder / "y.pack") == sha256(packed)


@pytest.mark.parametrize("torn", [b'[1234, 5678, "90', b"\0" * 30, b"\0\0\n\0"])
def test_what_the_journal_does_not_have_in_full_is_made_anew(folder, packed, torn):
    killed = get_context("fork").Process(target=pack, args=(Killed(folder, 13), folder / "y.pack"))
    killed.start()
    killed.join(300)
    with open(folder / "y.pack.partial.journal", "ab") as journal:
        journal.write(torn)
    assert pack(listed(folder), folder / "y.pack") == 10
    assert sha256(folder / "y.pack") == sha256(packed)


def test_a_killed_worker_is_said_and_the_pack_goes_on(folder, packed):
    with pytest.raises(PeerError, match="was killed.*same command again"):
        pack(Killed(folder, 20), folder / "y.pack", num_workers=1)
    assert pack(listed(folder), folder / "y.pack", num_workers=1) in (0, 16)
    assert sha256(folder / "y.pack") == sha256(packed)


class KillsTheParent(ImageNetDataset):
    """A worker that is asked for the last image ends the process that writes."""

    def read(self, index):
        if index == NUM_IMAGES - 1:
            os.kill(os.getppid(), signal.SIGKILL)
        return super().read(index)


def test_workers_end_with_the_process_that_writes(folder):
    source = KillsTheParent(str(folder / "images"), str(folder / "list.txt"))
    # Every process forked from now on holds the writing end of the pipe until it ends.
    reading, writing = os.pipe()
    process = get_context("fork").Process(target=pack, args=(source, folder / "y.pack"), kwargs={"num_workers": 2})
    process.start()
    os.close(writing)
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    assert select.select([reading], [], [], 300)[0] == [reading]
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_an_interrupted_run_loses_nothing(folder, packed):
    steps = write_pack(listed(folder), str(folder / "images"), folder / "y.pack", AS_IT_IS)
    for done in steps:
        if done == 7:
            break
    steps.close()
    assert pack(listed(folder), folder / "y.pack") == 7
    assert sha256(folder / "y.pack") == sha256(packed)


def test_two_runs_do_not_write_one_pack(folder):
    steps = write_pack(listed(folder), str(folder / "images"), folder / "y.pack", AS_IT_IS)
    next(steps)
    with pytest.raises(StorageError, match="another run is writing"):
        pack(listed(folder), folder / "y.pack")
    steps.close()


def test_other_arguments_than_those_of_the_first_run_are_refused(folder):
    steps = write_pack(listed(folder), str(folder / "images"), folder / "y.pack", Shrinking(30))
    next(steps)
    steps.close()
    with pytest.raises(ConfigError, match=r"y\.pack\.partial: is there already, with resize_short 30, not 40"):
        pack(listed(folder), folder / "y.pack", Shrinking(40))
    with pytest.raises(ConfigError, match="with quality 90, not 80"):
        pack(listed(folder), folder / "y.pack", Shrinking(30, 80))
    with pytest.raises(ConfigError, match="of other images or labels"):
        pack(ImageFolder(str(folder / "images")), folder / "y.pack", Shrinking(30))


def test_a_finished_pack_is_kept_and_another_does_not_take_its_place(folder, packed):
    before = packed.stat().st_mtime_ns
    assert pack(listed(folder), packed) == NUM_IMAGES
    with pytest.raises(ConfigError, match="with resize_short None, not 40"):
        pack(listed(folder), packed, Shrinking(40))
    assert packed.stat().st_mtime_ns == before
    packed.write_bytes(b"something else")
    with pytest.raises(StorageError, match="not a pack"):
        pack(listed(folder), packed)


LIMITED = """
import resource, sys
sys.path.insert(0, {tests!r})
from test_packed import *
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    pack(listed(Path({folder!r})), Path({folder!r}) / "y.pack")
except StorageError as error:
    print(error)
"""


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.97])
def test_a_full_disk_is_one_line_and_keeps_what_fits(folder, packed, share):
    limit = max(int(packed.stat().st_size * share), 2 * HEADER_BYTES)
    code = LIMITED.format(tests=str(Path(__file__).parent), limit=limit, folder=str(folder))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stderr == ""
    kept = pack(listed(folder), folder / "y.pack")
    assert f"y.pack.partial: cannot be written (File too large); {kept} of {NUM_IMAGES} images are kept" in done.stdout
    sizes = np.cumsum([len(listed(folder).read(index)[0]) for index in range(NUM_IMAGES)]) + HEADER_BYTES
    assert kept == (sizes <= limit).sum()
    assert sha256(folder / "y.pack") == sha256(packed)


# Bad images


@pytest.fixture
def two_bad(folder):
    """The two places in the list whose files are no images."""
    lines = (folder / "list.txt").read_text("utf-8").splitlines()
    for place in (3, 9):
        (folder / "images" / lines[place].rsplit(" ", 1)[0]).write_bytes(b"\xff\xd8 cut off")
    return 3, 9


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bad_image_stops_the_packing_and_is_named(folder, two_bad, num_workers):
    with pytest.raises(DataError, match=r"listed in .*list\.txt:4; mend it and .*--on_bad skip"):
        pack(listed(folder), folder / "x.pack", num_workers=num_workers)
    assert pack(listed(folder), folder / "x.pack", on_bad="skip") == 3


@pytest.mark.parametrize("num_workers", [0, 2])
def test_bad_images_are_left_out_and_named(folder, two_bad, num_workers):
    pack(listed(folder), folder / "x.pack", on_bad="skip", num_workers=num_workers)
    source, dataset = listed(folder), PackedDataset(str(folder / "x.pack"))
    good = [index for index in range(NUM_IMAGES) if index not in two_bad]
    assert [dataset.read(index) for index in range(len(dataset))] == [source.read(index) for index in good]
    assert [problem.rpartition("listed in ")[2] for problem in dataset.pack.skipped] == [
        f"{folder / 'list.txt'}:{index + 1}" for index in two_bad
    ]


def test_images_that_an_earlier_run_left_out_are_no_secret(folder, two_bad):
    steps = write_pack(listed(folder), str(folder / "images"), folder / "x.pack", AS_IT_IS, on_bad="skip")
    for done in steps:
        if done == 5:
            break
    steps.close()
    with pytest.raises(DataError, match="list.txt:4; an earlier run with --on_bad skip"):
        pack(listed(folder), folder / "x.pack")
    assert pack(listed(folder), folder / "x.pack", on_bad="skip") == 5
    assert len(Pack(folder / "x.pack").skipped) == 2


def test_a_list_without_one_good_image_makes_no_pack(folder):
    for path in (folder / "images").rglob("*.*"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no image is left"):
        pack(listed(folder), folder / "x.pack", on_bad="skip")
    assert not (folder / "x.pack").exists()


# Damage


def outcome(path, original):
    """What reading everything of a damaged pack ends in; fails where it gives an image that was not packed."""
    try:
        dataset = PackedDataset(str(path))
    except DataError as error:
        assert str(path) in str(error)
        return "refused"
    assert (len(dataset), dataset.labels.tolist()) == (len(original), original.labels.tolist())
    named = 0
    for index in range(len(dataset)):
        assert dataset.where(index).removeprefix(str(path)) == original.where(index).removeprefix(original.data_file)
        try:
            assert dataset.read(index) == original.read(index)
        except DataError as error:
            assert f"{path}: image {index}, " in str(error)
            named += 1
    assert named <= 1
    return "named" if named else "whole"


@pytest.mark.promise("F32")
def test_a_pack_that_is_cut_off_is_refused(packed, tmp_path, counted):
    data, original = packed.read_bytes(), PackedDataset(str(packed))
    draw = random.Random(0)
    for size in [0, 1, HEADER_BYTES - 1, HEADER_BYTES, len(data) - 1, *(draw.randrange(len(data)) for _ in range(30))]:
        (tmp_path / "cut.pack").write_bytes(data[:size])
        assert outcome(tmp_path / "cut.pack", original) == "refused", size
    counted(35)


@pytest.mark.promise("F32")
def test_a_flipped_bit_is_found(packed, tmp_path, counted):
    data, original = packed.read_bytes(), PackedDataset(str(packed))
    header = original.pack.header
    parts = {
        "header": (0, HEADER_BYTES, "refused"),
        "images": (HEADER_BYTES, header["index_start"], "named"),
        "index": (header["index_start"], header["digests_start"], "refused"),
        "digests": (header["digests_start"], header["file_bytes"], "whole"),
    }
    draw = random.Random(1)
    for start, end, expected in parts.values():
        for _ in range(60):
            flipped = bytearray(data)
            flipped[draw.randrange(start, end)] ^= 1 << draw.randrange(8)
            (tmp_path / "flipped.pack").write_bytes(flipped)
            assert outcome(tmp_path / "flipped.pack", original) == expected
            # `damaged` finds also what only it compares.
            with pytest.raises(DataError, match=r"flipped\.pack"):
                raise DataError("\n".join(damaged_images(tmp_path / "flipped.pack")))
    counted(4 * 60)


def test_a_pack_that_is_cut_off_while_it_is_read_is_an_error_of_the_image(packed):
    dataset = PackedDataset(str(packed))
    os.truncate(packed, HEADER_BYTES + 10)
    with pytest.raises(DataError, match=r"x\.pack: image 5, .*: the file ends before it"):
        dataset.read(5)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not a pack"),
        (b"PK\x03\x04" * 300, "not a pack, it starts with b'PK"),
        (b'{"format": "ppcls pack 1"}', "cut off"),
    ],
)
def test_what_is_no_pack_is_said(tmp_path, content, expected):
    (tmp_path / "x.pack").write_bytes(content)
    with pytest.raises(DataError, match=expected):
        PackedDataset(str(tmp_path / "x.pack"))


def test_a_pack_that_is_not_there_is_said(tmp_path):
    with pytest.raises(DataError, match=r"none\.pack: cannot be read \(No such file"):
        PackedDataset(str(tmp_path / "none.pack"))
    with pytest.raises(DataError, match="cannot be read"):
        PackedDataset(str(tmp_path))
