# SPDX-License-Identifier: Apache-2.0
"""Places on a real S3 server, and archives, as YAML names them."""

import hashlib
import io
import logging
import subprocess
import sys
import tarfile
import time
import zipfile

import pytest
from object_storage import KEY, SECRET

from ppcls.utils import download
from ppcls.utils.errors import ConfigError, DataError, StorageError
from ppcls.utils.local_copy import local_folder, local_path

FILES = {"data/train/1.txt": b"first", "data/train/2.txt": b"second", "data/list.txt": b"1.txt 0\n"}


def zipped(files=FILES):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return buffer.getvalue()


def tarred(files=FILES):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as opened:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            opened.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def content_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def left_in(cache):
    """What a failure leaves; locks are no content."""
    return [path.name for path in cache.iterdir() if not path.name.endswith(".lock")] if cache.exists() else []


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PPCLS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def refusal(place, kind):
    started = time.monotonic()
    with pytest.raises(kind) as caught:
        local_folder(place)
    # Not a question of speed: a run must not hang for minutes before it says what is wrong.
    assert time.monotonic() - started < 120
    message = str(caught.value)
    assert "\n" not in message and KEY not in message and SECRET not in message
    return message


def test_a_plain_path_stays_as_it_is(tmp_path):
    assert local_path("dataset/images/") == local_folder("dataset/images/") == "dataset/images/"
    assert local_path(str(tmp_path / "missing.zip")) == str(tmp_path / "missing.zip")


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_an_archive_in_object_storage_is_unpacked_with_its_digest_beside_it(s3, cache, pack):
    data = pack()
    s3.put("sets/data.archive" + (".zip" if pack is zipped else ".tgz"), data)
    [key] = s3.keys()
    folder = local_folder(f"s3://bucket/{key}")
    assert content_of(cache.joinpath(folder)) == FILES
    assert (cache / f"{folder}.sha256").read_text().strip() == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(("key", "pack"), [("data.zip", zipped), ("data.tar.gz", tarred)])
def test_two_processes_fetch_an_archive_once(s3, cache, key, pack):
    s3.put(key, pack())
    program = f"from ppcls.utils.local_copy import local_folder; print(local_folder('s3://bucket/{key}'))"
    command = [sys.executable, "-c", program]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = {process.communicate(timeout=300)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(folders) == 1 and content_of(cache.joinpath(folders.pop())) == FILES
    assert s3.downloads(key) == 1


def test_what_changes_in_object_storage_is_fetched_anew(s3, cache):
    s3.put("data.zip", zipped())
    first = local_folder("s3://bucket/data.zip")
    assert local_folder("s3://bucket/data.zip") == first and s3.downloads("data.zip") == 1
    s3.put("data.zip", zipped({"new": b"1"}))
    second = local_folder("s3://bucket/data.zip")
    assert content_of(cache.joinpath(second)) == {"new": b"1"} and content_of(cache.joinpath(first)) == FILES


def test_a_folder_and_a_file_in_an_archive_have_names(s3, cache):
    s3.put("data.zip", zipped())
    assert content_of(cache.joinpath(local_folder("s3://bucket/data.zip!/data/train"))) == {
        "1.txt": b"first",
        "2.txt": b"second",
    }
    assert cache.joinpath(local_path("s3://bucket/data.zip!/data/list.txt")).read_bytes() == b"1.txt 0\n"
    message = refusal("s3://bucket/data.zip!/train", DataError)
    assert message == "s3://bucket/data.zip: there is no 'train' in this archive; it begins with data"
    assert "must lie in the archive" in refusal("s3://bucket/data.zip!/../..", DataError)


def test_an_archive_on_disk_is_unpacked_once_until_it_changes(tmp_path, cache):
    path = tmp_path / "data.zip"
    path.write_bytes(zipped())
    folder = local_folder(f"{path}!/data")
    assert local_folder(f"{path}!/data") == folder
    path.write_bytes(zipped({"data/new": b"1"}))
    assert content_of(cache.joinpath(local_folder(f"{path}!/data"))) == {"new": b"1"}
    assert path.exists()


def test_a_folder_in_object_storage_is_fetched_file_by_file_once(s3, cache):
    for name, content in FILES.items():
        s3.put(f"sets/{name}", content)
    s3.put("sets/data/")  # a key that stands for a folder, as web consoles make them
    s3.put("sets2/other", b"of another folder")
    folder = local_folder("s3://bucket/sets/")
    assert content_of(cache.joinpath(folder)) == FILES
    assert local_folder("s3://bucket/sets") == folder
    assert s3.downloads("sets/data/list.txt") == 1


def test_one_file_in_object_storage_keeps_its_ending_and_is_checked(s3, cache):
    s3.put("list.txt", b"x 0\n")
    path = cache.joinpath(local_path("s3://bucket/list.txt"))
    assert path.suffix == ".txt" and path.read_bytes() == b"x 0\n"
    path.write_bytes(b"y 0\n")
    with pytest.raises(StorageError, match="altered since"):
        local_path("s3://bucket/list.txt")


@pytest.mark.parametrize("key", ["list.txt", "data.zip"])
def test_an_expected_digest_is_held_against_what_arrives(s3, cache, key):
    data = zipped()
    s3.put(key, data)
    assert local_path(f"s3://bucket/{key}#sha256={hashlib.sha256(data).hexdigest()}")
    assert "not the expected file" in refusal(f"s3://bucket/{key}#sha256={'0' * 64}", StorageError)


def test_any_scheme_of_fsspec_will_do(cache):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/bucket/set/a/1.txt", b"first")
    memory.pipe_file("/bucket/data.zip", zipped())
    try:
        assert content_of(cache.joinpath(local_folder("memory://bucket/set"))) == {"a/1.txt": b"first"}
        assert content_of(cache.joinpath(local_folder("memory://bucket/data.zip"))) == FILES
    finally:
        memory.rm("/bucket", recursive=True)


def test_the_chosen_directory_comes_before_the_environment(s3, cache, tmp_path):
    s3.put("list.txt", b"x")
    download.use_cache_dir(str(tmp_path / "chosen"))
    try:
        assert local_path("s3://bucket/list.txt").startswith(str(tmp_path / "chosen"))
    finally:
        download.use_cache_dir(None)
    assert local_path("s3://bucket/list.txt").startswith(str(cache))


@pytest.mark.parametrize(
    "data",
    [zipped({"../../out": b"1"}), zipped({"/tmp/out": b"1"}), zipped()[:-30], tarred()[:-30], b"no archive"],
    ids=["above", "absolute", "cut zip", "cut tar", "text"],
)
def test_a_refused_archive_leaves_nothing_in_the_cache(s3, cache, data):
    s3.put("data.zip", data)
    assert refusal("s3://bucket/data.zip", DataError).startswith("s3://bucket/data.zip: ")
    assert left_in(cache) == []


@pytest.mark.parametrize("place", ["s3://bucket/none", "s3://bucket/none.zip", "s3://no-such-bucket/data.zip"])
def test_what_is_not_there_is_one_line(s3, cache, place):
    message = refusal(place, StorageError)
    assert message.startswith(f"{place}: there is no such thing (") and "check bucket, name" in message
    assert left_in(cache) == []


def test_wrong_credentials_are_one_line_without_them(s3, cache):
    s3.put("data.zip", zipped())
    s3.refuse_everybody()
    message = refusal("s3://bucket/data.zip", StorageError)
    assert "access is refused" in message and "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY" in message


def test_no_credentials_are_one_line(s3, cache, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "no credentials" in refusal("s3://bucket/data.zip", StorageError)


def test_an_endpoint_that_does_not_answer_is_one_line(s3, cache, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert "no connection" in refusal("s3://bucket/data.zip", StorageError)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("file:///etc/passwd", "plain path"),
        ("zip://a::s3://bucket/data.zip", "chained"),
        ("s3://key:hidden@bucket/data", "credentials do not belong in an address"),
        ("s3:///data", "names no bucket"),
        ("obs://bucket/data", "AWS_ENDPOINT_URL=https://obs."),
        ("nonsense://bucket/data", "nonsense:// is not known"),
    ],
)
def test_addresses_that_are_not_of_object_storage_are_refused(s3, cache, place, words):
    message = refusal(place, ConfigError)
    assert words in message and "hidden" not in message


def test_a_missing_package_is_named(cache, monkeypatch):
    pytest.importorskip("fsspec")
    monkeypatch.setitem(sys.modules, "adlfs", None)
    assert refusal("az://bucket/data", ConfigError).endswith("needs a package that is not installed; pip install adlfs")


def test_without_fsspec_a_url_says_what_to_install_and_a_path_needs_nothing(cache, monkeypatch):
    for name in ("fsspec", "fsspec.core"):
        monkeypatch.setitem(sys.modules, name, None)
    assert refusal("s3://bucket/data", ConfigError).endswith("pip install s3fs")
    assert local_path("a/b") == "a/b"


def test_a_plain_run_does_not_import_what_clouds_need():
    program = "import sys, ppcls.engine; print({'fsspec', 's3fs', 'botocore', 'aiohttp'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "set()"


def test_no_secret_reaches_the_log(s3, cache, caplog):
    s3.put("data.zip", zipped())
    with caplog.at_level(logging.DEBUG):
        local_folder("s3://bucket/data.zip")
    assert "s3://bucket/data.zip" in caplog.text
    assert SECRET not in caplog.text and KEY not in caplog.text
