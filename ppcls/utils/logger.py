# SPDX-License-Identifier: Apache-2.0
"""The ``ppcls`` logger: lines for people on a stream, and in a file."""

from __future__ import annotations

import errno
import logging
import os
import sys
from typing import TextIO

from tqdm import tqdm

from ppcls.utils.line_file import LineFile

logger = logging.getLogger("ppcls")
FORMAT = logging.Formatter("[%(asctime)s] ppcls %(levelname)s: %(message)s", "%Y/%m/%d %H:%M:%S")
LOST = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE, errno.EAGAIN)
"""Errors at which a line is given up."""


class _Console(logging.Handler):
    """Writes above a progress bar, if there is one; leaves out what the bar shows already."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream
        self.num_lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        if has_bar() and getattr(record, "on_bar", False):
            return
        try:
            tqdm.write(self.format(record), file=self.stream)
            self.stream.flush()
        except OSError as error:
            # The stream may be a file on the disk that is full, a terminal that was closed, or a pipe to a reader that
            # has left, such as `head` or the launcher, or does not keep up: no reason to end what took days.
            if error.errno not in LOST:
                raise
            self.num_lost += 1
            if self.num_lost == 1:
                logger.warning("the log cannot be written where it is watched (%s)", error.strerror)


class _File(logging.Handler):
    """Appends to a file, as long as it can be written.

    Raises:
        OSError: it cannot be written now.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__()
        with open(path, "ab"):
            pass
        self.lines = LineFile(path, logger.warning)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record) + "\n")


def start_logging(file: str | os.PathLike | None = None, stream: TextIO | None = None, enabled: bool = True) -> None:
    """Send the log to a stream (standard output unless told otherwise) and, appended, to a file.

    Args:
        file: the log file.
        stream: where people look.
        enabled: false for processes that keep silent; their warnings are dropped too.
    """
    stop_logging()
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handlers: list[logging.Handler] = [_Console(stream or sys.stdout)] if enabled else [logging.NullHandler()]
    if file and enabled:
        handlers.append(_File(file))
    for handler in handlers:
        handler.setFormatter(FORMAT)
        logger.addHandler(handler)


def stop_logging() -> None:
    """Close the handlers that `start_logging` made."""
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def num_lost_lines() -> int:
    """How many lines could not be written where they are watched."""
    return sum(handler.num_lost for handler in logger.handlers if isinstance(handler, _Console))


def log_traceback(error: BaseException) -> None:
    """Write an exception with its traceback to the log file only, and once; people see one line elsewhere."""
    if getattr(error, "is_logged", False):
        return
    error.is_logged = True
    record = logger.makeRecord(
        logger.name, logging.ERROR, "", 0, "%s", (error,), (type(error), error, error.__traceback__)
    )
    for handler in logger.handlers:
        if isinstance(handler, _File):
            handler.handle(record)


def has_bar() -> bool:
    """Whether progress bars are drawn: a person is watching a terminal."""
    return sys.stderr.isatty()
