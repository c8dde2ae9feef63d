# SPDX-License-Identifier: Apache-2.0
"""Archives, among them those that somebody made to do harm."""

import gzip
import io
import os
import stat
import tarfile
import zipfile

import pytest

from ppcls.utils import archive
from ppcls.utils.archive import is_archive, unpack
from ppcls.utils.errors import DataError, StorageError

FILES = {"a/one.txt": b"one", "a/b/two.bin": bytes(range(256)) * 5000, "empty": b"", "A/one.txt": b"another"}
TAR_MODES = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}


@pytest.fixture
def place(tmp_path):
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache" / "data"


def write_zip(path, files=FILES, **options):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content, **options)
    return path


def write_tar(path, files=FILES, mode="w", extra=()):
    with tarfile.open(path, mode) as opened:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            opened.addfile(entry, io.BytesIO(content))
        for entry in extra:
            opened.addfile(entry)
    return path


def content_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(path, place, kind=DataError):
    """The message of a refused archive; nothing may be left where it was to go."""
    with pytest.raises(kind) as caught:
        unpack(path, place)
    assert list(place.parent.iterdir()) == []
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def entry_of_type(name, kind, target=""):
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def test_zip_comes_out_as_it_went_in(tmp_path, place):
    unpack(write_zip(tmp_path / "x.zip"), place)
    assert content_of(place) == FILES
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.parametrize("ending", TAR_MODES)
def test_tar_comes_out_as_it_went_in(tmp_path, place, ending):
    path = write_tar(tmp_path / f"x{ending}", mode=TAR_MODES[ending], extra=[entry_of_type("dir", tarfile.DIRTYPE)])
    assert is_archive(str(path).upper())
    unpack(path, place)
    assert content_of(place) == FILES
    assert (place / "dir").is_dir()


def test_the_content_and_not_the_name_says_what_an_archive_is(tmp_path, place):
    unpack(write_zip(tmp_path / "x.tar"), place)
    unpack(write_tar(tmp_path / "y.zip", mode="w:gz"), place.with_name("other"))
    assert content_of(place) == content_of(place.with_name("other")) == FILES


def test_permissions_and_owners_stay_behind(tmp_path, place):
    entry = tarfile.TarInfo("run")
    entry.mode, entry.uid, entry.uname = 0o6777, 0, "root"
    with tarfile.open(tmp_path / "x.tar", "w") as opened:
        opened.addfile(entry, io.BytesIO(b""))
    unpack(tmp_path / "x.tar", place)
    assert not stat.S_IMODE((place / "run").stat().st_mode) & 0o6111


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/tmp/out", "a/.."])
@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, place, write, name):
    message = refusal(write(tmp_path / "x.archive", {"good": b"1", name: b"2"}), place)
    assert repr(name) in message and "outside" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_in_a_tar_are_refused(tmp_path, place, kind):
    path = write_tar(tmp_path / "x.tar", extra=[entry_of_type("link", kind, "/etc/passwd")])
    assert "member 'link' is a link" in refusal(path, place)


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_in_a_tar_are_refused(tmp_path, place, kind):
    path = write_tar(tmp_path / "x.tar", extra=[entry_of_type("dev", kind)])
    assert "member 'dev' is neither a file nor a folder" in refusal(path, place)


@pytest.mark.parametrize(("mode", "words"), [(stat.S_IFLNK, "is a link"), (stat.S_IFIFO, "is neither")])
def test_links_and_devices_in_a_zip_are_refused(tmp_path, place, mode, words):
    info = zipfile.ZipInfo("odd")
    info.external_attr = (mode | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as opened:
        opened.writestr(info, "/etc/passwd")
    assert f"member 'odd' {words}" in refusal(tmp_path / "x.zip", place)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_that_is_there_twice_is_refused(tmp_path, place):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as opened:
        opened.writestr("a", b"1")
        opened.writestr("a", b"2")
    assert "member 'a' is there twice" in refusal(tmp_path / "x.zip", place)
    assert "is there twice" in refusal(write_tar(tmp_path / "x.tar", {"b": b"1", "b/c": b"2"}), place)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.7, 0.98])
@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz", ".tar.xz"])
def test_an_archive_that_is_cut_off_is_refused(tmp_path, place, ending, part):
    path = tmp_path / f"x{ending}"
    files = {f"file{index}": os.urandom(3000) for index in range(20)}
    write_zip(path, files) if ending == ".zip" else write_tar(path, files, TAR_MODES[ending])
    data = path.read_bytes()
    if ending == ".tar":
        data = data[: 20 * (512 + 3072)]  # without the end mark and its padding
    path.write_bytes(data[: int(len(data) * part)])
    assert "cut off" in refusal(path, place)


def test_a_tar_cut_between_two_members_is_refused(tmp_path, place):
    path = write_tar(tmp_path / "x.tar", {"a": b"1" * 512, "b": b"2" * 512})
    path.write_bytes(path.read_bytes()[:1024])
    assert "ends before its end mark" in refusal(path, place)


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
def test_a_flipped_bit_is_noticed(tmp_path, place, ending):
    path = tmp_path / f"x{ending}"
    files = {"noise": os.urandom(20000)}
    write_zip(path, files) if ending == ".zip" else write_tar(path, files, "w:gz")
    data = bytearray(path.read_bytes())
    data[10000] ^= 16
    path.write_bytes(data)
    assert "damaged" in refusal(path, place)


@pytest.mark.parametrize("write", [write_zip, lambda path, files: write_tar(path, files, "w:gz")])
def test_an_archive_that_is_far_larger_inside_is_refused(tmp_path, place, write, monkeypatch):
    monkeypatch.setattr(archive, "UNSUSPICIOUS_BYTES", 1 << 20)
    bomb = write(tmp_path / "x.archive", {f"zeros{index}": bytes(1 << 20) for index in range(8)})
    assert "over 200 times its own size" in refusal(bomb, place)


def test_zeros_behind_the_end_of_a_tar_count_too(tmp_path, place, monkeypatch):
    monkeypatch.setattr(archive, "UNSUSPICIOUS_BYTES", 1 << 20)
    plain = write_tar(tmp_path / "x.tar", {"a": b"1"}).read_bytes()
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(plain + bytes(8 << 20)))
    assert "over 200 times" in refusal(path, place)


def test_small_archives_of_blank_images_are_fine(tmp_path, place):
    unpack(write_zip(tmp_path / "x.zip", {"blank": bytes(4 << 20)}), place)
    assert (place / "blank").stat().st_size == 4 << 20


def test_what_the_disk_has_no_room_for_is_not_begun(tmp_path, place, monkeypatch):
    usage = archive.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    message = refusal(write_zip(tmp_path / "x.zip"), place, StorageError)
    assert "the disk has 1 KB left; let Global.cache_dir name a larger one" in message


def test_an_encrypted_zip_is_refused(tmp_path, place):
    path = write_zip(tmp_path / "x.zip", {"a": b"1"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert "member 'a' is encrypted" in refusal(path, place)


def test_no_archive_at_all_is_refused(tmp_path, place):
    (tmp_path / "x.zip").write_text("<html>Not found</html>" * 100)
    assert "no archive" in refusal(tmp_path / "x.zip", place)
