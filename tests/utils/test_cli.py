# SPDX-License-Identifier: Apache-2.0
"""How a tool ends: expected failures in one line each with their exit code, bugs with a traceback."""

import errno
import shlex
import signal
import subprocess
import sys

import pytest

from ppcls.utils.cli import run
from ppcls.utils.errors import ConfigError, DataError, NumericsError, Stopped


@pytest.fixture(autouse=True)
def handlers():
    """Those of this process, which go on after the tool's end."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ending(main):
    with pytest.raises(SystemExit) as caught:
        run(main)
    return caught.value.code


def raising(error):
    def main():
        raise error

    return main


def test_a_stop_that_a_library_has_made_anew_of_its_text_is_the_same_stop():
    stopped = Stopped(signal.SIGTERM)
    remade = type(stopped)(f"In transformed code:\n  {stopped}\n  line 3")
    assert (remade.number, str(remade)) == (signal.SIGTERM, str(stopped))
    assert remade.exit_code == 143


def test_without_paddle_a_command_that_needs_it_says_so_in_one_line(capsys):
    assert ending(raising(ModuleNotFoundError("No module named 'paddle'", name="paddle"))) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(ModuleNotFoundError):
        run(raising(ModuleNotFoundError("No module named 'numpi'", name="numpi")))


def test_success_is_exit_code_0():
    assert ending(lambda: None) == 0


@pytest.mark.parametrize(("error", "code"), [(DataError("a"), 3), (NumericsError("a"), 4)])
def test_an_expected_failure_has_its_own_exit_code(error, code, capsys):
    assert ending(raising(error)) == code
    assert capsys.readouterr() == ("", "a\n")


def test_every_problem_is_a_line_on_stderr(capsys):
    assert ending(raising(ConfigError(["x.yaml:1: a", "x.yaml:2: b"]))) == 2
    assert capsys.readouterr() == ("", "x.yaml:1: a\nx.yaml:2: b\n")


def test_ctrl_c_is_exit_code_130(capsys):
    assert ending(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_bug_passes_through():
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)


def test_a_reader_that_leaves_early_causes_no_message():
    program = "from ppcls.utils.cli import run\nrun(lambda: print('x' * 10_000_000))"
    tool = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    tool.stdout.read(10)
    tool.stdout.close()
    assert tool.stderr.read() == b""
    assert tool.wait() == 0
    tool.stderr.close()


LOGS = """
import sys
from pathlib import Path
from ppcls.utils.cli import run
from ppcls.utils.errors import DataError
from ppcls.utils.logger import logger, start_logging

def main():
    start_logging()
    logger.info("begun")
    sys.stdin.read()
    for number in range(3000):
        logger.info("line %d", number)
    Path(sys.argv[1]).write_text("trained")
    if sys.argv[2:]:
        raise DataError("no")

run(main)
"""


@pytest.mark.parametrize(("more", "code", "told"), [([], 0, b""), (["fail"], 3, b"no\n")])
def test_a_reader_of_the_log_that_leaves_ends_nothing(tmp_path, more, code, told):
    command = [sys.executable, "-c", LOGS, str(tmp_path / "done"), *more]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tool:
        tool.stdout.readline()
        tool.stdout.close()
        tool.stdin.close()
        assert tool.stderr.read() == told
        assert tool.wait() == code
    assert (tmp_path / "done").read_text() == "trained"


def test_another_pipe_that_breaks_is_a_bug():
    with pytest.raises(BrokenPipeError):
        run(raising(BrokenPipeError(errno.EPIPE, "Broken pipe")))


def test_results_that_cannot_be_written_are_an_error_of_storage():
    program = "from ppcls.utils.cli import run\nrun(lambda: print('the answer'))"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (5, "cannot be read or written (No space left on device)\n")


CLOSED = """
import os, sys
from pathlib import Path
from ppcls.utils.cli import run
from ppcls.utils.logger import logger, start_logging

def main():
    with open(sys.argv[1], "w") as file:
        os.write(1, b"by C")
        print("by Python")
        print("by Python", file=sys.stderr)
        start_logging()
        logger.info("a line")
        file.write(f"{sys.stdin.read()}{file.fileno() > 2}")

run(main)
"""


def test_a_tool_that_was_started_without_streams_writes_to_no_file_what_is_not_for_it(tmp_path):
    command = shlex.join([sys.executable, "-c", CLOSED, str(tmp_path / "file")])
    assert subprocess.run(["sh", "-c", f"{command} <&- >&- 2>&-"], check=False).returncode == 0
    assert (tmp_path / "file").read_text() == "True"


IMPORTS = """
import os, signal, sys
from ppcls.utils.cli import importing, run

signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background is started to ignore it

def main():
    with importing():
        os.kill(os.getpid(), int(sys.argv[1]))
        import paddle
        print("imported", flush=True)
    print("too late")

run(main)
"""


@pytest.mark.parametrize(
    ("number", "code", "told"),
    [(signal.SIGTERM, 143, "stopped by signal 15 (SIGTERM)\n"), (signal.SIGINT, 130, "interrupted\n")],
)
def test_a_signal_that_comes_while_paddle_is_imported_is_no_error_of_the_import(number, code, told):
    command = [sys.executable, "-c", IMPORTS, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "imported\n", told)


WAITS = """
import signal, sys, time
from ppcls.utils.cli import run

signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background is started to ignore it

def wait():
    while True:  # not signal.pause: a signal just before it would not end it
        time.sleep(0.01)

def main():
    try:
        print("ready", flush=True)
        wait()
    finally:
        print("closed", flush=True)
        if sys.argv[1:]:
            wait()

run(main)
"""


@pytest.fixture
def waiting():
    """Start a tool that waits, and perhaps again while it closes what it has open."""
    tools = []

    def start(*more):
        command = [sys.executable, "-c", WAITS, *more]
        tools.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        assert tools[-1].stdout.readline() == "ready\n"
        return tools[-1]

    yield start
    for tool in tools:
        tool.communicate()


@pytest.mark.parametrize(
    ("number", "code", "told"),
    [(signal.SIGTERM, 143, "stopped by signal 15 (SIGTERM)\n"), (signal.SIGINT, 130, "interrupted\n")],
)
def test_a_signal_ends_a_tool_with_a_line_when_it_has_closed_what_is_open(waiting, number, code, told):
    tool = waiting()
    tool.send_signal(number)
    assert tool.communicate() == ("closed\n", told)
    assert tool.returncode == code


def test_a_second_sigterm_does_not_wait(waiting):
    tool = waiting("again")
    tool.send_signal(signal.SIGTERM)
    assert tool.stdout.readline() == "closed\n"
    tool.send_signal(signal.SIGTERM)
    assert tool.communicate() == ("", "")
    assert tool.returncode == 143


FORKS = """
import os, signal, time
from ppcls.utils.cli import run

def main():
    mine, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.write(theirs, b"a signal to a fork that has not begun is lost")
        while True:
            time.sleep(0.01)
    os.read(mine, 1)
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

run(main)
"""


def test_what_a_tool_has_forked_ends_without_a_word():
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("143\n", "")
