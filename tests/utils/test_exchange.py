# SPDX-License-Identifier: Apache-2.0
"""A directory is replaced without a moment in which there is none; where the system cannot, in two renames."""

import errno
import os
import sys
import threading

import pytest

from ppcls.utils import exchange as exchange_of
from ppcls.utils import storage
from ppcls.utils.errors import StorageError
from ppcls.utils.exchange import exchange
from ppcls.utils.storage import published, verify

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a system call of Linux")


@pytest.fixture
def two(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "said").write_text(name)
    if not exchange(tmp_path / "one", tmp_path / "other"):
        pytest.skip("this file system cannot exchange directories")
    exchange(tmp_path / "one", tmp_path / "other")
    return tmp_path / "one", tmp_path / "other"


def publish(final, content):
    with published(final, "thing") as partial:
        (partial / "said").write_bytes(content)


def test_two_full_directories_change_places(two):
    one, other = two
    assert exchange(one, other)
    assert [(path / "said").read_text() for path in two] == ["other", "one"]


def test_paths_may_be_relative_and_hold_any_bytes(two, monkeypatch):
    one, other = two
    strange = os.fsdecode("夜 ".encode() + b"\xff")
    other.rename(other.with_name(strange))
    monkeypatch.chdir(one.parent)
    assert exchange("one", strange)
    assert (one / "said").read_text() == "other"


def test_what_is_not_there_cannot_be_exchanged(two):
    with pytest.raises(FileNotFoundError):
        exchange(two[0], two[0].with_name("none"))


def test_whoever_looks_while_it_is_replaced_finds_a_directory(two):
    final = two[0].with_name("final")
    publish(final, b"0")
    missing, is_over = [], threading.Event()

    def look():
        while not is_over.is_set():
            if not final.is_dir():
                missing.append(final)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for number in range(200):
            publish(final, str(number).encode())
    finally:
        is_over.set()
        thread.join()
    assert missing == []
    assert (final / "said").read_bytes() == b"199"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_it_cannot_be_done_a_directory_is_replaced_in_two_renames(two, monkeypatch, number):
    class Library:
        def renameat2(self, *arguments):
            exchange_of.ctypes.set_errno(number)
            return -1

    final = two[0].with_name("final")
    publish(final, b"1")
    monkeypatch.setattr(exchange_of.ctypes, "CDLL", lambda *arguments, **options: Library())
    assert not exchange(*two)
    publish(final, b"2")
    assert (final / "said").read_bytes() == b"2"
    verify(final)
    assert sorted(path.name for path in final.parent.iterdir()) == ["final", "one", "other"]


def test_a_library_without_the_call_is_told(two, monkeypatch):
    monkeypatch.setattr(exchange_of.ctypes, "CDLL", lambda *arguments, **options: object())
    assert not exchange(*two)


def test_an_exchange_that_is_refused_leaves_what_was_there(two, monkeypatch):
    def refused(one, other):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    final = two[0].with_name("final")
    publish(final, b"1")
    monkeypatch.setattr(storage, "exchange", refused)
    with pytest.raises(StorageError, match="cannot be written .Permission denied"):
        publish(final, b"2")
    assert (final / "said").read_bytes() == b"1"
    assert sorted(path.name for path in final.parent.iterdir()) == ["final", "one", "other"]
