# SPDX-License-Identifier: Apache-2.0
"""What a command line tool does with an expected failure: its lines on stderr and its exit code, no traceback."""

from __future__ import annotations

import argparse
import errno
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn, TextIO

from ppcls.utils.errors import ConfigError, PpclsError, Stopped, StorageError
from ppcls.utils.logger import log_traceback

INTERRUPTED = 130
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)


def run(main: Callable[[], None]) -> NoReturn:
    """Call ``main`` and exit: 0, the failure's own exit code, 130 after Ctrl-C, or 143 after SIGTERM.

    A file that the system refuses (no permission, disk full, a folder in its place) is a `StorageError` in effect.
    Other exceptions are bugs; they pass through, so that Python shows the traceback and exits with 1.
    """
    _open_streams()
    _raise_at_sigterm()
    try:
        main()
        sys.stdout.flush()
    except PpclsError as error:
        log_traceback(error)
        print(error, file=sys.stderr)
        raise SystemExit(exit_code_of(error)) from None
    except Stopped as error:
        _exit_at_signals(error.exit_code)
        with suppress(OSError):  # the terminal may have gone
            print(error, file=sys.stderr)
        # Whoever sent it waits, and all is closed: Python's own end takes Paddle a second or more, in which another
        # signal (launchers send several) would make this the end of a process that was killed.
        leave(error.exit_code)
    except ModuleNotFoundError as error:
        if error.name != "paddle":
            raise
        print("this command needs Paddle, which is not installed; pip install paddlepaddle==3.3.1", file=sys.stderr)
        raise SystemExit(ConfigError.exit_code) from None
    except KeyboardInterrupt as error:
        print("interrupted", file=sys.stderr)
        raise SystemExit(exit_code_of(error)) from None
    except OSError as error:
        if isinstance(error, BrokenPipeError) and any(map(_is_left, (sys.stdout, sys.stderr))):
            raise SystemExit(0) from None  # the reader (such as `head`) has seen enough
        if not _is_refused(error):
            raise
        log_traceback(error)
        place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        print(f"{place}cannot be read or written ({error.strerror})", file=sys.stderr)
        raise SystemExit(exit_code_of(error)) from None
    finally:
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)
    raise SystemExit(0)


@contextmanager
def importing() -> Iterator[None]:
    """Hold SIGTERM and SIGINT back until the block, which imports Paddle, has ended.

    Paddle 3.3.1 makes an ImportError of a signal that comes while it is imported, and then takes SIGTERM for itself.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    try:
        yield
        from ppcls.utils.paddle_signals import take_from_paddle

        take_from_paddle()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave(code: int) -> NoReturn:
    """End the process from any thread, without a word to the main one: it may be in a library that does not return."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _open_streams() -> None:
    """Where the tool was started with a stream closed, put nothing in its place: a file would get its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def _is_left(stream: TextIO) -> bool:
    """Whether a stream is a pipe to a reader that has ended."""
    poll = select.poll()
    with suppress(OSError, ValueError):
        poll.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _flush(stream: TextIO) -> None:
    """Lead a stream that does not take what was written to it to nowhere.

    Python would complain of it at its end, and change the exit code.
    """
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _raise_at_sigterm() -> None:
    """Let SIGTERM end the tool as Ctrl-C does: what is open is closed, and processes that help it end."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return
    owner = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a process that was forked to help, and is not to clean up after this one
            os._exit(Stopped(number).exit_code)
        _exit_at_signals(Stopped(number).exit_code)
        raise Stopped(number)

    signal.signal(signal.SIGTERM, stop)


def _exit_at_signals(code: int) -> None:
    """From now on a signal cuts the ending short."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda *_: os._exit(code))


def exit_code_of(error: BaseException | None) -> int:
    """Return the exit code of a tool that ends with this error, or without one; see `run`."""
    if error is None:
        return 0
    if isinstance(error, (PpclsError, Stopped)):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, OSError) and _is_refused(error):
        return StorageError.exit_code
    return 1


def _is_refused(error: OSError) -> bool:
    return error.filename is not None or error.errno in DISK_ERRORS


def config_arguments(description: str, example: str) -> argparse.Namespace:
    """Parse what every verb takes: ``-c FILE`` and any number of ``-o key.path=value``."""
    return config_parser(description, f"example:\n  {example}").parse_args()


def config_parser(description: str, epilog: str, is_required: bool = True) -> argparse.ArgumentParser:
    """A parser for ``-c FILE`` and any number of ``-o key.path=value``, to which more may be added."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-c", "--config", required=is_required, metavar="FILE", help="the experiment's YAML file")
    parser.add_argument(
        "-o",
        "--override",
        action="append",
        default=[],
        metavar="KEY.PATH=VALUE",
        help="set one value of the file, such as -o Global.epochs=3 or -o DataLoader.Train.sampler.batch_size=8; "
        "the value is read as YAML, list items are named by number; may be given many times",
    )
    return parser
