# SPDX-License-Identifier: Apache-2.0
import hashlib
import os
import pickle
import runpy
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from ppcls.data import Cifar10, Cifar100
from ppcls.data.cifar_files import CIFAR10, CIFAR100
from ppcls.data.rng import BatchRng, SampleRng
from ppcls.data.transforms import ColorJitter, DecodeImage, NormalizeImage, Pad, RandFlipImage, RandomCropImage
from ppcls.utils.errors import ConfigError, DataError, StorageError

MAKE = str(Path(__file__).resolve().parents[2] / "dataset" / "make_cifar.py")
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def write_folder(root, num_classes=10, names=None, per_class={"train": 3, "test": 1}):  # noqa: B006
    """PNG images, lossless, whose first pixel is (class, number, 0 for train and 1 for test)."""
    rng = np.random.RandomState(0)
    for split, (mode, count) in enumerate(per_class.items()):
        for label in range(num_classes):
            folder = root / mode / (names[label] if names else f"class_{label:03}")
            folder.mkdir(parents=True)
            for number in range(count):
                image = rng.randint(0, 256, (32, 32, 3)).astype(np.uint8)
                image[0, 0] = (label, number, split)
                cv2.imwrite(str(folder / f"{number}.png"), image[:, :, ::-1])
    return root


def make(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [MAKE, *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(MAKE, run_name="__main__")
    return caught.value.code


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "images", names=NAMES)


@pytest.fixture(params=["python", "binary"])
def archive(request, folder, tmp_path, monkeypatch):
    path = tmp_path / f"mine-{request.param}.tar.gz"
    assert make(monkeypatch, folder, path, "--form", request.param) == 0
    return path


def contents(dataset):
    return {
        (tuple(image[0, 0].tolist()), image.tobytes()): label for image, label in map(dataset.read, range(len(dataset)))
    }


def test_a_folder_of_images_keeps_pixels_and_sorted_classes(folder):
    dataset = Cifar10(str(folder), "train")
    assert (len(dataset), dataset.class_names) == (30, NAMES)
    for index in range(30):
        image, label = dataset.read(index)
        assert (image.shape, image.dtype) == ((32, 32, 3), np.uint8)
        assert image[0, 0].tolist() == [label, index % 3, 0]


@pytest.mark.parametrize("mode", ["train", "test"])
def test_the_official_form_holds_the_same_images_packed_and_unpacked(folder, archive, tmp_path, mode):
    expected = contents(Cifar10(str(folder), mode))
    packed = Cifar10(str(archive), mode)
    assert contents(packed) == expected
    assert packed.class_names == NAMES
    with tarfile.open(archive) as file:
        file.extractall(tmp_path / "unpacked", filter="data")
    for place in (tmp_path / "unpacked", *(tmp_path / "unpacked").iterdir()):
        assert contents(Cifar10(str(place), mode)) == expected


def test_a_zip_of_a_folder_is_unpacked_once(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PPCLS_CACHE", str(tmp_path / "cache"))
    packed = shutil.make_archive(str(tmp_path / "mine"), "zip", tmp_path, "images")
    assert contents(Cifar10(f"{packed}!/images", "test")) == contents(Cifar10(str(folder), "test"))


def test_the_same_images_give_the_same_archive(folder, tmp_path, monkeypatch, capsys):
    printed = []
    for name in ("a.tar.gz", "b.tar.gz"):
        assert make(monkeypatch, folder, tmp_path / name) == 0
        printed.append(capsys.readouterr().out.split()[-1])
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()
    assert printed[0] == printed[1]
    assert Cifar10(str(tmp_path / "a.tar.gz"), sha256=printed[0]).num_classes == 10


def test_pixels_in_the_binary_form_stand_plane_by_plane(tmp_path):
    # https://www.cs.toronto.edu/~kriz/cifar.html: 1 byte of label, then 1024 red, 1024 green, 1024 blue, row by row.
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    record = bytes([7]) + bytes([10] * 1024) + bytes([20] * 1024) + bytes([30] * 1023 + [99])
    (folder / "test_batch.bin").write_bytes(record)
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    image, label = Cifar10(str(folder), "test").read(0)
    assert label == 7
    assert image[0, 0].tolist() == [10, 20, 30]
    assert image[31, 31].tolist() == [10, 20, 99]


def test_pickles_of_python_2_are_read(tmp_path):
    # Protocol 2 as Python 2 wrote it: keys and pixels are byte strings (SHORT_BINSTRING, BINSTRING).
    def text(value):
        return b"U" + bytes([len(value)]) + value

    pixels = bytes(range(256)) * 12
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t"
        + text(b"b")
        + b"tR(K\x01(K\x01M\x00\x0ctcnumpy\ndtype\n("
        + text(b"u1")
        + b"K\x00K\x01tR(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + len(pixels).to_bytes(4, "little")
        + pixels
        + b"tb"
    )
    batch = b"\x80\x02}(" + text(b"data") + array + text(b"labels") + b"](K\x04e" + b"u."
    names = b"\x80\x02}(" + text(b"label_names") + b"](" + b"".join(text(name.encode()) for name in NAMES) + b"eu."
    (tmp_path / "test_batch").write_bytes(batch)
    (tmp_path / "batches.meta").write_bytes(names)
    dataset = Cifar10(str(tmp_path), "test")
    image, label = dataset.read(0)
    assert (label, dataset.class_names) == (4, NAMES)
    np.testing.assert_array_equal(image, np.frombuffer(pixels, np.uint8).reshape(3, 32, 32).transpose(1, 2, 0))


@pytest.mark.parametrize("form", ["python", "binary"])
def test_cifar100_takes_the_fine_labels(tmp_path, monkeypatch, form):
    folder = write_folder(tmp_path / "images", 100, per_class={"train": 1, "test": 1})
    archive = tmp_path / "mine.tar.gz"
    assert make(monkeypatch, folder, archive, "--classes", "100", "--form", form) == 0
    dataset = Cifar100(str(archive), "train")
    assert contents(dataset) == contents(Cifar100(str(folder), "train"))
    assert sorted(dataset.labels.tolist()) == list(range(100))
    with pytest.raises(DataError, match="neither CIFAR's official files nor a folder"):
        Cifar10(str(archive), "train")


def test_training_and_test_images_have_no_image_in_common(archive):
    assert not set(contents(Cifar10(str(archive), "train"))) & set(contents(Cifar10(str(archive), "test")))


def test_the_official_archives_are_known_by_their_digest():
    # As published with the archives' MD5 sums by several data set collections.
    assert [name for official in (CIFAR10, CIFAR100) for name in official.sha256] == [
        "cifar-10-python.tar.gz",
        "cifar-10-binary.tar.gz",
        "cifar-100-python.tar.gz",
        "cifar-100-binary.tar.gz",
    ]
    assert all(len(digest) == 64 for official in (CIFAR10, CIFAR100) for digest in official.sha256.values())
    assert CIFAR10.url == "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"


def test_an_archive_under_an_official_name_is_held_against_the_official_digest(archive, tmp_path):
    official = tmp_path / "cifar-10-python.tar.gz"
    shutil.copy(archive, official)
    with pytest.raises(StorageError, match="not the expected archive, its sha256 is [0-9a-f]{64} instead of 6d958be0"):
        Cifar10(str(official))


def test_a_digest_of_ones_own_is_checked(archive):
    with pytest.raises(StorageError, match="not the expected archive"):
        Cifar10(str(archive), sha256="0" * 64)


@pytest.mark.parametrize("inside", ["", "!/images"])
@pytest.mark.parametrize("where", ["here", "elsewhere"])
@pytest.mark.parametrize("ending", ["zip", "gztar"])
def test_an_archive_to_unpack_is_held_against_its_digest(folder, tmp_path, monkeypatch, inside, where, ending):
    monkeypatch.setenv("PPCLS_CACHE", str(tmp_path / "cache"))
    packed = Path(shutil.make_archive(str(tmp_path / "mine"), ending, *(tmp_path, "images") if inside else (folder,)))
    place = str(packed)
    if where == "elsewhere":
        storage = pytest.importorskip("fsspec").filesystem("memory")
        place = f"memory://{tmp_path.name}/{packed.name}"
        storage.pipe(place, packed.read_bytes())
    elif (ending, inside) == ("gztar", ""):
        pytest.skip("a tar archive on this machine is read as it is: the official form")
    digest = hashlib.sha256(packed.read_bytes()).hexdigest()
    assert contents(Cifar10(place + inside, "test", sha256=digest)) == contents(Cifar10(str(folder), "test"))
    with pytest.raises(StorageError, match=f"not the expected .*, its sha256 is {digest} instead of 0000"):
        Cifar10(place + inside, "test", sha256="0" * 64)


def test_two_different_digests_for_one_address_are_refused():
    with pytest.raises(ConfigError, match="two different digests"):
        Cifar10(f"s3://bucket/mine.zip#sha256={'1' * 64}!/images", "test", sha256="0" * 64)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_an_archive_that_is_cut_off_is_one_line(archive, share):
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match="cut off, damaged or no tar archive") as caught:
        Cifar10(str(archive), "test")
    assert "\n" not in str(caught.value)


def test_a_batch_that_is_cut_off_names_its_file(archive, tmp_path):
    with tarfile.open(archive) as file:
        file.extractall(tmp_path / "unpacked", filter="data")
    (batch,) = [path for path in (tmp_path / "unpacked").rglob("test_batch*")]
    batch.write_bytes(batch.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"test_batch.*cut off"):
        Cifar10(str(tmp_path / "unpacked"), "test")


def test_a_missing_batch_is_named(archive, tmp_path):
    with tarfile.open(archive) as file:
        file.extractall(tmp_path / "unpacked", filter="data")
    (batch,) = [path for path in (tmp_path / "unpacked").rglob("data_batch_3*")]
    batch.unlink()
    with pytest.raises(DataError, match="data_batch_3.* is missing"):
        Cifar10(str(tmp_path / "unpacked"), "train")


def test_a_pickle_that_calls_something_is_refused(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    (tmp_path / "test_batch").write_bytes(pickle.dumps({"data": Attack()}))
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({"label_names": NAMES}))
    with pytest.raises(DataError, match="mkdir, which is neither"):
        Cifar10(str(tmp_path), "test")
    assert not (tmp_path / "attacked").exists()


def test_labels_outside_the_classes_are_refused(tmp_path):
    (tmp_path / "test_batch.bin").write_bytes(bytes([10]) + bytes(3072))
    (tmp_path / "batches.meta.txt").write_text("\n".join(NAMES))
    with pytest.raises(DataError, match=r"labels outside 0\.\.9"):
        Cifar10(str(tmp_path), "test")


def test_images_of_another_size_and_other_classes_are_refused(folder):
    cv2.imwrite(str(folder / "test" / "cat" / "big.png"), np.zeros((33, 32, 3), np.uint8))
    with pytest.raises(DataError, match=r"big\.png: 32 x 33 pixels, not 32 x 32; for other images take ImageFolder"):
        Cifar10(str(folder), "test")
    shutil.rmtree(folder / "test" / "cat")
    with pytest.raises(DataError, match="9 class folders, not 10"):
        Cifar10(str(folder), "test")


def test_what_is_not_there_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PPCLS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match="data_file: nowhere.tar.gz: no such file or folder; paths start from"):
        Cifar10("nowhere.tar.gz")
    with pytest.raises(DataError, match="not given, and download is false"):
        Cifar10(download=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="neither CIFAR's official files nor a folder"):
        Cifar10(str(tmp_path / "empty"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a", "b")
    with pytest.raises(DataError, match="neither CIFAR's official files nor a folder"):
        Cifar10(str(tmp_path / "a.zip"))


def test_making_an_archive_of_a_wrong_folder_leaves_nothing(tmp_path, monkeypatch, capsys):
    (tmp_path / "images" / "train" / "cat").mkdir(parents=True)
    assert make(monkeypatch, tmp_path / "images", tmp_path / "a.tar.gz") == 3
    assert "a class folder without images" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_an_image_goes_through_the_operations(folder):
    ops = [DecodeImage(), NormalizeImage(scale=1.0, mean=[0.0] * 3, std=[1.0] * 3, order="")]
    image, label = Cifar10(str(folder), "test", transform_ops=ops).sample(4)
    assert (image.shape, image.dtype, label) == ((3, 32, 32), np.float32, 4)
    assert image[:, 0, 0].tolist() == [4.0, 0.0, 1.0]


def test_a_real_archive_of_all_images():
    place = os.environ.get("PPCLS_CIFAR10")
    if not place:
        pytest.skip("PPCLS_CIFAR10 names no archive")
    for mode, count in (("train", 5000), ("test", 1000)):
        assert Cifar10(place, mode).class_counts.tolist() == [count] * 10


def test_a_folder_with_the_test_images_only_has_the_known_names(tmp_path):
    (tmp_path / "test_batch.bin").write_bytes(bytes([3]) + bytes(3072))
    assert Cifar10(str(tmp_path), "test").class_names == NAMES
    with pytest.raises(DataError, match="data_batch_1.bin is missing"):
        Cifar10(str(tmp_path), "train")


def test_classes_that_differ_between_train_and_test_make_no_archive(folder, tmp_path, monkeypatch, capsys):
    (folder / "test" / "cat").rename(folder / "test" / "cats")
    assert make(monkeypatch, folder, tmp_path / "a.tar.gz") == 3
    assert "the class 'cat' is only in one of train and test" in capsys.readouterr().err
    assert not (tmp_path / "a.tar.gz").exists()


def test_names_of_several_words_come_back(tmp_path, monkeypatch):
    names = ["traffic light", "café", *NAMES[2:]]
    folder = write_folder(tmp_path / "images", names=names)
    assert make(monkeypatch, folder, tmp_path / "a.tar.gz", "--form", "binary") == 0
    assert Cifar10(str(tmp_path / "a.tar.gz"), "test").class_names == sorted(names)


def test_batches_are_made_at_once_with_what_each_sample_draws(folder):
    jitter = ColorJitter(0.5, 0.4, 0.4, 0.4)
    recipe = [DecodeImage(), Pad(4), RandomCropImage(32), RandFlipImage(), jitter, NormalizeImage(order="")]
    dataset = Cifar10(str(folder), transform_ops=recipe)
    assert not dataset.makes_batches  # the last operation takes them from behind the workers
    dataset.pipeline.finish()
    assert dataset.makes_batches
    indices = np.array([3, 0, 3, 7])
    images, labels = dataset.samples(indices, BatchRng(9, 4, indices))
    for row, index in enumerate(indices):
        image, label = dataset.sample(index, SampleRng(9, 4, index))
        assert np.array_equal(images[row], image) and labels[row] == label
