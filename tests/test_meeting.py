# SPDX-License-Identifier: Apache-2.0
"""The processes of a job find each other and nobody else: ports that are taken, and two jobs at once."""

import json
import os
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import toys

TOYS = Path(toys.__file__).parent
ROOT = TOYS.parents[1]
TAKEN = (
    r"process 0: port \d+, where the others would meet it, is taken; "
    "start again, and the launcher chooses another port, or give each job ports of its own"
)
OTHER_JOB = r"process 1: another job meets at 127\.0\.0\.1:\d+; start again, .*"
SAY_WHO_IS_THERE = """
import sys
from ppcls.utils import dist
dist.connect()
print("met", dist.rank(), *dist.gathered(sys.argv[1]))
"""


def start(command, **environment):
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PADDLE_", "CUDA_"))}
    return subprocess.run(
        [sys.executable, *command],
        env={**clean, "PYTHONPATH": f"{ROOT}{os.pathsep}{TOYS}", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What ``meetings.py`` came to."""
    folder = tmp_path_factory.mktemp("meetings")
    finished = start([str(TOYS / "meetings.py"), str(folder)])
    assert finished.returncode == 0, finished.stderr[-5000:]
    return {path.stem: json.loads(path.read_text()) for path in folder.iterdir()}


@pytest.mark.promise("F28")
def test_a_port_that_another_program_has_is_one_line(told):
    text, code = told["taken_a0"]
    assert re.fullmatch(TAKEN, text)
    assert code == 6


@pytest.mark.promise("F28")
def test_of_two_jobs_that_come_to_one_port_at_once_one_is_refused_and_the_other_is_alone(told):
    first = [[job] * 2 == told[f"at once_{job}0"] == told[f"at once_{job}1"] for job in "ab"]
    assert sorted(first) == [False, True]
    refused = "ab"[first.index(False)]
    assert re.fullmatch(TAKEN, told[f"at once_{refused}0"][0])
    assert re.fullmatch(OTHER_JOB, told[f"at once_{refused}1"][0])


@pytest.mark.promise("F28")
def test_a_job_that_comes_to_the_port_of_another_is_refused(told):
    assert told["later_a0"] == told["later_a1"] == ["a", "a"]
    (first, first_code), (second, second_code) = told["later_b0"], told["later_b1"]
    assert re.fullmatch(TAKEN, first)
    assert re.fullmatch(OTHER_JOB, second)
    assert first_code == second_code == 6


def launch(folder, job, launcher, **environment):
    """Let two processes say whom they meet: their answers, and all that was printed."""
    (folder / "who.py").write_text(SAY_WHO_IS_THERE)
    options = ["--nproc_per_node", "2", "--log_dir", str(folder / job)]
    finished = start([*launcher, *options, str(folder / "who.py"), job], **environment)
    logs = "".join(path.read_text() for path in sorted((folder / job).glob("*log*")))
    return sorted(re.findall("^met (.*)", logs, re.MULTILINE)), finished.stdout + finished.stderr + logs


@pytest.fixture
def two_ranges():
    """Two ranges of 16 ports, below those that systems give away; the first and every other port is taken."""
    with ExitStack() as stack:
        ranges = []
        begins = iter(range(20000 + 16 * (os.getpid() % 700), 32700, 16))
        while len(ranges) < 2:
            begin = next(begins)
            try:
                for port in range(begin, begin + 16, 2):
                    taken = stack.enter_context(socket.socket())
                    taken.bind(("", port))
                    taken.listen()
            except OSError:
                continue  # somebody is there
            ranges.append(f"{begin}:{begin + 15}")
        yield ranges


@pytest.mark.promise("F28")
def test_launches_at_once_pass_ports_that_are_taken_and_stay_apart(tmp_path, two_ranges, counted):
    master = ["--master", f"127.0.0.1:{two_ranges[0].partition(':')[0]}"]
    plain, ours = ["-m", "paddle.distributed.launch"], [str(ROOT / "tools" / "launch.py")]
    with ThreadPoolExecutor(3) as pool:
        jobs = {name: pool.submit(launch, tmp_path, name, [*plain, *master], PORT_RANGE=ports)
                for name, ports in zip("ab", two_ranges)}  # fmt: skip
        jobs["c"] = pool.submit(launch, tmp_path, "c", [*ours, "--devices", "cpu"])
    for name, job in jobs.items():
        answers, text = job.result()
        assert answers == [f"{rank} {name} {name}" for rank in range(2)], text
    counted(len(jobs))
