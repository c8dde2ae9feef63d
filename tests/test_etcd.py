# SPDX-License-Identifier: Apache-2.0
"""Paddle's launcher starts a job again when it has etcd as its master; needs the programs of Debian's etcd-server.

And the package etcd3, whose generated code wants ``PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python``.
"""

import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest
import toys
from group import free_ports

TOYS = Path(toys.__file__).parent
ROOT = TOYS.parents[1]
LONG_SECONDS = 300


@pytest.fixture
def etcd(tmp_path):
    """The address of an etcd server."""
    program = shutil.which("etcd")
    if not program or not find_spec("etcd3"):
        pytest.skip("needs Debian's etcd-server and the package etcd3")
    here, peers = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    options = ["--data-dir", str(tmp_path / "etcd"), "--listen-client-urls", here, "--advertise-client-urls", here]
    options += ["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers]
    with subprocess.Popen(
        [program, *options, "--initial-cluster", f"default={peers}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        end = time.monotonic() + LONG_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"{here}/health", timeout=10).close()
                break
            except (urllib.error.URLError, TimeoutError):
                assert server.poll() is None and time.monotonic() < end
                time.sleep(0.1)
        yield here.replace("http", "etcd")
        server.kill()


def launch(config, folder, *options):
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PADDLE_", "CUDA_"))}
    given = {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(TOYS), os.environ.get("PYTHONPATH")])),
        "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python",
        "OMP_NUM_THREADS": "1",
        "KILL_AT_PLACE": "2,1",
        "KILLED": str(folder / "killed"),
    }
    settings = ["Global.checkpoints=auto", f"Global.output_dir={folder}/output", "Global.save_step_interval=1"]
    settings.append("Global.imports=[toy_arch, kill_once]")
    words = [word for setting in settings for word in ("-o", setting)]
    launcher = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(folder / "log"), *options]
    finished = subprocess.run(
        [sys.executable, *launcher, "tools/train.py", "-c", str(config), *words],
        env={**clean, **given},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    return folder


def test_a_job_whose_process_is_killed_is_started_again_and_ends_as_if_nothing_had_happened(etcd, tmp_path):
    config = toys.write_yaml(tmp_path, toys.write_data(tmp_path / "data"))
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    (tmp_path / "whole" / "killed").touch()
    whole = launch(config, tmp_path / "whole")
    restarts = ["--master", etcd, "--job_id", "toy", "--elastic_level", "1", "--max_restart", "2"]
    parts = launch(config, tmp_path / "parts", *restarts)
    assert (parts / "killed").exists()
    assert "continuing from" in (parts / "output" / "train.log").read_text()
    for name in ("epoch_2", "best_model"):
        assert toys.digests(parts / "output" / name) == toys.digests(whole / "output" / name)
