# SPDX-License-Identifier: Apache-2.0
"""The tools as a person calls them, on a run that is trained once."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import toys

from ppcls.utils.logger import stop_logging

ROOT = Path(__file__).resolve().parents[2]
TOYS = Path(toys.__file__).parent


def in_process_of_its_own(name, *arguments):
    command = [sys.executable, str(ROOT / "tools" / f"{name}.py"), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(TOYS), "PYTHONWARNINGS": ""}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="session")
def process():
    """Run a tool in a process of its own."""
    return in_process_of_its_own


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with ``toy.yaml``, ``data`` and the ``output`` of its training; what training printed is ``log``."""
    folder = tmp_path_factory.mktemp("trained")
    config = toys.write_yaml(folder, toys.write_data(folder / "data"))
    done = in_process_of_its_own("train", "-c", config)
    assert done.returncode == 0, done.stderr
    (folder / "log").write_text(done.stdout)
    assert done.stderr == ""
    return folder


@pytest.fixture
def run_folder(trained, tmp_path):
    """A copy of the trained folder, to be damaged."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    toys.write_yaml(tmp_path, tmp_path / "data")
    return tmp_path


@pytest.fixture
def tool(run_folder, monkeypatch, capfd):
    """Run a tool on ``toy.yaml`` within this process: (exit code, stdout, stderr). Only what it expects is caught."""

    def call(name, *overrides, config=None):
        arguments = [item for override in overrides for item in ("-o", override)]
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "-c", str(config or run_folder / "toy.yaml"), *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / "tools" / f"{name}.py"), run_name="__main__")
        stop_logging()
        out, err = capfd.readouterr()
        return end.value.code, out, err

    return call
