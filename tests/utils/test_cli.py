# SPDX-License-Identifier: Apache-2.0
"""How a tool ends: expected failures in one line each with their exit code, bugs with a traceback."""

import subprocess
import sys

import pytest

from ppcls.utils.cli import run
from ppcls.utils.errors import ConfigError, DataError, NumericsError


def ending(main):
    with pytest.raises(SystemExit) as caught:
        run(main)
    return caught.value.code


def raising(error):
    def main():
        raise error

    return main


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
