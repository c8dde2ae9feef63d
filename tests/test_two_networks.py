# SPDX-License-Identifier: Apache-2.0
"""Two machines, each a network namespace of this one with a cable between them; needs root and ``ip``."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toys

TOYS = Path(toys.__file__).parent
ROOT = TOYS.parents[1]
PORT = 36123
PADDLE, OURS = ["-m", "paddle.distributed.launch"], ["tools/launch.py"]
LONG_SECONDS = 300


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True)


class Machines:
    """Two namespaces, ``names``, whose ends of the cable are called ``cable`` and have ``addresses``."""

    cable = "cable"

    def __init__(self):
        self.names = [f"ppcls-{os.getpid()}-{rank}" for rank in range(2)]
        self.addresses = [f"10.83.0.{rank + 1}" for rank in range(2)]

    def __enter__(self):
        for name in self.names:
            ip("netns", "add", name)
        here, there = self.names
        end = ["type", "veth", "peer", "name", self.cable, "netns", there]
        ip("link", "add", self.cable, "netns", here, *end)
        for name, address in zip(self.names, self.addresses):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", self.cable)
            ip("-n", name, "link", "set", "lo", "up")
        self.connect()
        return self

    def __exit__(self, *error):
        for name in self.names:
            for pid in subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split():
                os.kill(int(pid), signal.SIGKILL)  # what a test that failed has left
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)

    def launch(self, launcher, rank, folder, *overrides):
        """Start the launcher of one machine; its output and that of its process go to ``folder/log_<rank>``."""
        log = folder / f"log_{rank}"
        nodes = ["--nnodes", "2", "--rank", str(rank), "--master", f"{self.addresses[0]}:{PORT}"]
        nodes += ["--nproc_per_node", "1", "--log_dir", str(log)]
        nodes += ["--host", self.addresses[rank]] if launcher == PADDLE else ["--devices", "cpu"]
        log.mkdir()
        with open(log / "launcher.log", "w") as output:
            return subprocess.Popen(
                [*self.enter(rank), *train([*launcher, *nodes], folder, *overrides)],
                env=environment(GLOO_SOCKET_IFNAME=self.cable),
                cwd=ROOT,
                stdout=output,
                stderr=output,
            )

    def enter(self, rank):
        """What a command is preceded by to run on that machine, which has a name of its own."""
        name = self.names[rank]
        return ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", f'hostname {name}; exec "$@"', "sh"]

    def cut(self):
        """Take the cable out."""
        for name in self.names:
            ip("-n", name, "link", "set", self.cable, "down")

    def connect(self):
        """Put it in."""
        for name in self.names:
            ip("-n", name, "link", "set", self.cable, "up")


def environment(**more):
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PADDLE_", "CUDA_"))}
    return {**clean, "PYTHONPATH": str(TOYS), "OMP_NUM_THREADS": "1", **more}


def train(launcher, folder, *overrides):
    overrides = ["Global.imports=[toy_arch]", f"Global.output_dir={folder}/output", *overrides]
    words = [word for override in overrides for word in ("-o", override)]
    return [sys.executable, *launcher, "tools/train.py", "-c", str(folder.parent / "toy.yaml"), *words]


@pytest.fixture(scope="module")
def machines():
    if sys.platform != "linux" or os.geteuid() or not (shutil.which("ip") and shutil.which("unshare")):
        pytest.skip("machines like these need root and the commands ip and unshare")
    machines = Machines()
    try:
        with machines:
            yield machines
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.strip()}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    toys.write_yaml(folder, toys.write_data(folder / "data"))
    return folder


def logs(folder):
    return "".join(path.read_text()[-5000:] for path in sorted(folder.glob("log*/*log*")))


def records(output):
    clock = {"time", "ips", "batch_cost", "reader_cost", "eta_seconds"}
    lines = map(json.loads, (output / "train.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name not in clock} for line in lines]


@pytest.fixture(scope="module")
def together(folder):
    """What two processes on one machine have written."""
    together = folder / "together"
    here = [*PADDLE, "--nproc_per_node", "2", "--log_dir", str(together / "log")]
    finished = subprocess.run(train(here, together), env=environment(), cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return together / "output"


@pytest.mark.parametrize("launcher", [PADDLE, OURS], ids=["Paddle's launcher", "tools/launch.py"])
def test_two_machines_train_as_one_machine_with_two_processes(machines, folder, together, launcher):
    apart = folder / f"apart_{len(launcher)}"
    apart.mkdir()
    launchers = [machines.launch(launcher, rank, apart) for rank in range(2)]
    assert [launcher.wait(LONG_SECONDS) for launcher in launchers] == [0, 0], logs(apart)
    assert records(apart / "output") == records(together)
    for name in ("epoch_2", "best_model"):
        assert toys.digests(apart / "output" / name) == toys.digests(together / name)


def test_a_cable_that_is_taken_out_ends_both_sides_in_a_line(machines, folder):
    machines.connect()
    cut = folder / "cut"
    cut.mkdir()
    settings = ["Global.epochs=100000", "Global.stall_timeout=5"]
    launchers = [machines.launch(PADDLE, rank, cut, *settings) for rank in range(2)]
    record = cut / "output" / "train.jsonl"
    end = time.monotonic() + LONG_SECONDS
    while not (record.exists() and '"epoch"' in record.read_text()):
        assert time.monotonic() < end and [launcher.poll() for launcher in launchers] == [None, None], logs(cut)
        time.sleep(0.1)
    machines.cut()
    assert [launcher.wait(LONG_SECONDS) for launcher in launchers] == [6, 6], logs(cut)
    for rank in range(2):
        log = (cut / f"log_{rank}" / "workerlog.0").read_text()
        assert re.search(rf"^process {1 - rank} .*does not answer.*", log, re.MULTILINE), log
        assert "Traceback" not in log
