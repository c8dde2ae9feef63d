# SPDX-License-Identifier: Apache-2.0
"""Files that grow line by line on disks that fill up, vanish and come back."""

import errno
import resource
import shutil

import pytest

from ppcls.utils.line_file import LineFile
from ppcls.utils.logger import logger, start_logging, stop_logging


@pytest.fixture
def lines(tmp_path):
    file = LineFile(tmp_path / "folder" / "lines", lambda text: file.told.append(text))
    file.told = []
    return file


def test_lines_are_appended_and_at_once_in_the_file(lines):
    lines.append("one\n")
    assert lines.path.read_text() == "one\n"
    lines.append("é \udc80\n")
    assert lines.path.read_bytes() == b"one\n\xc3\xa9 \\udc80\n"
    assert (lines.told, lines.num_lost) == ([], 0)


def test_half_a_line_is_none(lines):
    lines.append("1234567\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        lines.append("abcdefg\n")
        lines.append("hijklmn\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    lines.append("end\n")
    assert lines.path.read_text() == "1234567\nend\n"
    assert lines.num_lost == 2
    assert lines.told == [
        f"{lines.path}: cannot be written (No space left on device); lines are lost until it can",
        f"{lines.path}: can be written again; 2 lines so far are not in it",
    ]


def test_a_file_that_was_removed_with_its_folder_is_made_again(lines):
    lines.append("one\n")
    shutil.rmtree(lines.path.parent)
    lines.append("two\n")
    assert lines.path.read_text() == "two\n"
    assert (lines.told, lines.num_lost) == ([], 0)


def test_a_file_that_cannot_be_made_again_is_told_once(lines):
    lines.path.parent.write_text("a file in the place of the folder")
    for _ in range(3):
        lines.append("one\n")
    assert lines.num_lost == 3
    assert len(lines.told) == 1


def test_a_log_that_cannot_be_written_is_told_once_where_people_look_and_goes_on(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    start_logging(tmp_path / "run" / "train.log")
    try:
        logger.info("one")
        shutil.rmtree(tmp_path / "run")
        (tmp_path / "run").write_text("")
        logger.info("two, 100 %s", "%")
        logger.info("three")
        (tmp_path / "run").unlink()
        logger.info("four")
    finally:
        stop_logging()
    shown = [line.partition(": ")[2] for line in capsys.readouterr().out.splitlines()]
    path = tmp_path / "run" / "train.log"
    assert shown == [
        *("one", "two, 100 %", f"{path}: cannot be written (Not a directory); lines are lost until it can"),
        *("three", "four", f"{path}: can be written again; 3 lines so far are not in it"),
    ]
    assert [line.partition(": ")[2] for line in path.read_text().splitlines()] == shown[-2:]


class FullDisk:
    """A stream that is a file on a full disk."""

    def write(self, text):
        """It is in the buffer."""

    def flush(self):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_stream_on_a_full_disk_does_not_end_what_logs(tmp_path):
    start_logging(tmp_path / "train.log", stream=FullDisk())
    try:
        logger.info("one")
        logger.info("two")
    finally:
        stop_logging()
    told = [line.partition(": ")[2] for line in (tmp_path / "train.log").read_text().splitlines()]
    assert told == ["the log cannot be written where it is watched (No space left on device)", "one", "two"]
