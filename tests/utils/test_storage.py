# SPDX-License-Identifier: Apache-2.0
import json
import os
import resource

import pytest

from ppcls.utils.errors import StorageError
from ppcls.utils.storage import (
    ensure_writable,
    published,
    remove,
    require_replaceable,
    sha256,
    verify,
    write_text,
)


def write(final, **files):
    with published(final, "thing") as directory:
        for name, content in files.items():
            (directory / name).write_bytes(content)


@pytest.fixture
def checkpoint(tmp_path):
    write(tmp_path / "epoch_1", model=b"weights" * 1000, state=b"{}")
    return tmp_path / "epoch_1"


def test_published_directory_verifies_and_lists_its_files(checkpoint):
    files = verify(checkpoint)["files"]
    assert {name: entry["size"] for name, entry in files.items()} == {"model": 7000, "state": 2}
    assert sorted(path.name for path in checkpoint.iterdir()) == ["manifest.json", "model", "state"]


def test_nothing_appears_before_the_block_ends(tmp_path):
    with published(tmp_path / "deep" / "epoch_1", "thing") as directory:
        (directory / "model").write_bytes(b"x")
        assert not (tmp_path / "deep" / "epoch_1").exists()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["epoch_1"]


def test_publishing_again_replaces_the_whole_directory(checkpoint):
    write(checkpoint, other=b"new")
    assert list(verify(checkpoint)["files"]) == ["other"]
    assert sorted(path.name for path in checkpoint.iterdir()) == ["manifest.json", "other"]
    assert [path.name for path in checkpoint.parent.iterdir()] == ["epoch_1"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_exception_leaves_the_old_directory_untouched(checkpoint, error):
    with pytest.raises(error), published(checkpoint, "thing") as directory:
        (directory / "model").write_bytes(b"half")
        raise error
    assert verify(checkpoint)["files"]["model"]["size"] == 7000
    assert [path.name for path in checkpoint.parent.iterdir()] == ["epoch_1"]


def test_failing_write_is_a_storage_error_that_names_the_directory(checkpoint):
    with (
        pytest.raises(StorageError, match="cannot be written .*nothing was changed"),
        published(checkpoint, "thing"),
    ):
        raise OSError(28, "No space left on device")
    verify(checkpoint)


def test_truncated_file_is_named(checkpoint):
    with open(checkpoint / "model", "r+b") as file:
        file.truncate(6999)
    with pytest.raises(StorageError, match="model: cut off or altered, 6999 bytes instead of 7000"):
        verify(checkpoint)


@pytest.mark.parametrize("position", [0, 3500, 6999])
def test_one_flipped_bit_is_noticed(checkpoint, position):
    content = bytearray((checkpoint / "model").read_bytes())
    content[position] ^= 1
    (checkpoint / "model").write_bytes(content)
    with pytest.raises(StorageError, match="model: altered"):
        verify(checkpoint)


def test_missing_file_is_named(checkpoint):
    (checkpoint / "state").unlink()
    with pytest.raises(StorageError, match="state: missing"):
        verify(checkpoint)


def test_link_in_place_of_a_file_is_refused(checkpoint, tmp_path):
    (checkpoint / "state").rename(tmp_path / "elsewhere")
    (checkpoint / "state").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="state: missing"):
        verify(checkpoint)


def test_directory_without_manifest_is_not_complete(checkpoint):
    (checkpoint / "manifest.json").unlink()
    with pytest.raises(StorageError, match="epoch_1: not complete, it has no manifest.json"):
        verify(checkpoint)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": 3}', '{"files": {"model": {}}}', '{"files": {"model": 1}}'])
def test_unreadable_manifest_is_named(checkpoint, text):
    (checkpoint / "manifest.json").write_text(text)
    with pytest.raises(StorageError, match="manifest.json: cannot be read"):
        verify(checkpoint)


def test_manifest_cannot_point_outside_the_directory(checkpoint, tmp_path):
    (tmp_path / "outside").write_bytes(b"x")
    entry = {"size": 1, "sha256": sha256(tmp_path / "outside")}
    (checkpoint / "manifest.json").write_text(json.dumps({"files": {"../outside": entry}}))
    with pytest.raises(StorageError, match="outside: missing"):
        verify(checkpoint)


def test_sha256_of_a_known_text(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_writable_directory_is_created_and_left_empty(tmp_path):
    assert ensure_writable(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_place_under_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="output: cannot be written .*; choose another directory"):
        ensure_writable(tmp_path / "file" / "output")
    with (
        pytest.raises(StorageError, match="epoch_1: cannot be written"),
        published(tmp_path / "file" / "epoch_1", "thing"),
    ):
        pass


def test_what_stands_in_the_place_of_a_directory_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StorageError, match="file: cannot be written .it is a file."):
        ensure_writable(tmp_path / "file")
    with pytest.raises(StorageError, match="link: cannot be written .it is a link to what is not there."):
        ensure_writable(tmp_path / "link")


def test_a_small_file_that_cannot_be_written_stays_as_it_was(tmp_path):
    path = tmp_path / "config.yaml"
    write_text(path, "before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2, limits[1]))
    try:
        with pytest.raises(StorageError, match="config.yaml: cannot be written .File too large.; nothing was changed"):
            write_text(path, "after")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_directory_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="cannot be written .Permission denied"):
            ensure_writable(tmp_path / "output")
    finally:
        tmp_path.chmod(0o700)


def test_a_directory_with_somebody_elses_files_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="holds .*, which would be lost; choose a new or empty directory"):
        write(tmp_path, model=b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_damaged_directory_under_a_name_of_our_own_is_replaced(checkpoint):
    (checkpoint / "manifest.json").unlink()
    with published(checkpoint, "thing", owns_name=True) as directory:
        (directory / "model").write_bytes(b"new")
    assert list(verify(checkpoint)["files"]) == ["model"]


def test_an_empty_directory_is_filled(tmp_path):
    write(tmp_path / "new", model=b"x")
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", model=b"x")
    verify(tmp_path / "empty")


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "export").write_text("mine")
    with pytest.raises(StorageError, match="export: is a file, not a directory"):
        write(tmp_path / "export", model=b"x")
    assert (tmp_path / "export").read_text() == "mine"


def test_a_link_is_followed_and_stays(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "export").symlink_to(tmp_path / "disk")
    write(tmp_path / "export", model=b"x")
    assert (tmp_path / "export").is_symlink()
    verify(tmp_path / "disk")


def test_a_removed_directory_leaves_nothing(checkpoint):
    remove(checkpoint)
    assert list(checkpoint.parent.iterdir()) == []


def test_an_interrupted_removal_leaves_no_half_directory_under_the_name(checkpoint, monkeypatch):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        remove(checkpoint)
    assert not checkpoint.exists()


def test_a_published_directory_that_somebody_added_to_is_not_replaced(tmp_path):
    with published(tmp_path / "model", "thing") as partial:
        (partial / "weights").write_bytes(b"1")
    (tmp_path / "model" / "another").mkdir()
    with (
        pytest.raises(StorageError, match="holds another, which would be lost"),
        published(tmp_path / "model", "thing") as partial,
    ):
        (partial / "weights").write_bytes(b"2")
    assert (tmp_path / "model" / "weights").read_bytes() == b"1"


def test_only_the_same_kind_of_directory_is_replaced(tmp_path):
    with published(tmp_path / "model", "checkpoint") as partial:
        (partial / "weights").write_bytes(b"1")
    with pytest.raises(StorageError, match="holds weights, which would be lost"):
        require_replaceable(tmp_path / "model", "deployed model")
    require_replaceable(tmp_path / "model", "checkpoint")
