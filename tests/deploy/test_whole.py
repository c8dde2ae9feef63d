# SPDX-License-Identifier: Apache-2.0
"""A bundle that is replaced while it is read is read again."""

import pytest

from ppcls.deploy.whole import NUM_TRIES, read_whole
from ppcls.utils.errors import StorageError
from ppcls.utils.storage import published


def publish(directory, content):
    with published(directory, "thing") as partial:
        for name in ("one", "other"):
            (partial / name).write_text(content)


def read_and(directory, disturb):
    """Read one file, let something happen, read the other."""

    def read():
        one = (directory / "one").read_text()
        disturb()
        return one, (directory / "other").read_text()

    return read


def test_what_is_read_is_of_one_export(tmp_path):
    contents = iter(["b", "c"])
    publish(tmp_path / "x", "a")
    calls = []

    def replaced_twice():
        calls.append(1)
        if content := next(contents, None):
            publish(tmp_path / "x", content)

    assert read_whole(tmp_path / "x", read_and(tmp_path / "x", replaced_twice)) == ("c", "c")
    assert len(calls) == 3


def test_what_fails_as_it_was_replaced_is_tried_again_and_what_fails_by_itself_is_not(tmp_path):
    publish(tmp_path / "x", "a")
    calls = []

    def read():
        calls.append(1)
        if len(calls) == 1:
            publish(tmp_path / "x", "b")
        raise ValueError(str(len(calls)))

    with pytest.raises(ValueError, match="2"):
        read_whole(tmp_path / "x", read)


def test_without_a_bundle_what_is_said_is_what_the_reader_says(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_whole(tmp_path / "none", read_and(tmp_path / "none", lambda: None))


@pytest.mark.parametrize("fails", [True, False])
def test_one_that_is_replaced_all_the_time_is_given_up(tmp_path, fails):
    calls = []

    def read():
        calls.append(1)
        publish(tmp_path / "x", str(len(calls)))
        if fails:
            raise ValueError

    with pytest.raises(StorageError, match=f"was replaced {NUM_TRIES} times while it was read; try again"):
        read_whole(tmp_path / "x", read)
    assert len(calls) == NUM_TRIES
