# SPDX-License-Identifier: Apache-2.0
"""tools/launch.py with processes that need no Paddle: what it starts, says, refuses, and does not start again."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from ppcls.utils.accelerators import Accelerators
from ppcls.utils.errors import ConfigError, PeerError
from ppcls.utils.rendezvous import FREE_PORTS, Outcome, Rendezvous, Verdict, free_ports
from ppcls.utils.supervisor import Supervisor

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("PADDLE_TRAINER_ID", "PADDLE_TRAINERS_NUM", "PADDLE_LOCAL_RANK", "PADDLE_LOCAL_SIZE", "PADDLE_MASTER")
SCRIPT = """
import json, os, sys
from pathlib import Path
folder, rank = Path(sys.argv[1]), int(os.environ["PADDLE_TRAINER_ID"])
print("hello from", rank)
starts = len(list(folder.glob(f"start_*_{rank}.json")))
told = {name: os.environ[name] for name in NAMES}
(folder / f"start_{starts}_{rank}.json").write_text(json.dumps(told))
"""


@pytest.fixture
def launch(tmp_path):
    """Run a few lines in each process, behind those that note what it was told."""

    def run(lines, *options, timeout=60):
        (tmp_path / "script.py").write_text(f"NAMES = {NAMES}{SCRIPT}{lines}")
        words = ["tools/launch.py", "--devices", "cpu", "--log_dir", tmp_path / "log", "--restart_wait", "0.01"]
        return subprocess.run(
            [sys.executable, *map(str, words), *options, str(tmp_path / "script.py"), str(tmp_path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


def told(folder, start, rank):
    return json.loads((folder / f"start_{start}_{rank}.json").read_text())


def test_each_process_is_told_its_place_and_the_first_is_shown(launch, tmp_path):
    done = launch("", "--nproc_per_node", "3")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello from 0\n", "")
    for rank in range(3):
        place = told(tmp_path, 0, rank)
        assert place["PADDLE_TRAINER_ID"] == place["PADDLE_LOCAL_RANK"] == str(rank)
        assert place["PADDLE_TRAINERS_NUM"] == place["PADDLE_LOCAL_SIZE"] == "3"
        assert place["PADDLE_MASTER"] == told(tmp_path, 0, 0)["PADDLE_MASTER"]
        assert (tmp_path / "log" / f"rank_{rank}.log").read_text() == f"hello from {rank}\n"


@pytest.mark.parametrize("code", [2, 3, 4, 7])
def test_what_another_start_cannot_help_is_not_started_again(launch, tmp_path, code):
    done = launch(f"print('data.txt: no', file=sys.stderr)\nsys.exit({code})", "--max_restarts", "3")
    assert done.returncode == code
    assert "data.txt: no" in done.stderr
    assert "not started again, as " in done.stderr
    assert not (tmp_path / "start_1_0.json").exists()


@pytest.mark.parametrize(("lines", "code"), [("sys.exit(5)", 5), ("1 / 0", 1), ("os.kill(os.getpid(), 9)", 137)])
def test_other_failures_are_started_again(launch, tmp_path, lines, code):
    done = launch(f"if not starts:\n    {lines}", "--max_restarts", "1")
    assert done.returncode == 0
    assert f"(exit code {code})" in done.stderr
    assert told(tmp_path, 1, 0)["PADDLE_MASTER"] != told(tmp_path, 0, 0)["PADDLE_MASTER"]


def test_processes_that_do_not_end_with_the_first_are_ended(launch, tmp_path, monkeypatch):
    lines = "import time\nif rank == 0:\n    time.sleep(600)\nraise OSError('no such luck')"
    done = launch(lines, "--nproc_per_node", "2")
    assert done.returncode == 1
    assert "launch: process 1 failed: OSError: no such luck (exit code 1)" in done.stderr
    assert done.stderr.count("Traceback") == 1


def test_a_process_that_ends_for_another_s_sake_is_not_the_cause(launch):
    done = launch("import time\nif rank == 0:\n    sys.exit(6)\ntime.sleep(0.5)\nsys.exit(3)", "--nproc_per_node", "2")
    assert done.returncode == 3


def test_ctrl_c_is_passed_on_once_and_waited_for(tmp_path, launch):
    lines = (
        "import signal, time\n"
        "def save(number, frame):\n"
        "    (folder / f'saved_{rank}').touch()\n"
        "    sys.exit(128 + number)\n"
        "signal.signal(signal.SIGINT, save)\n"
        "if rank == 0:\n"
        "    while not (folder / 'ready').exists():\n"
        "        time.sleep(0.01)\n"
        "    os.kill(os.getppid(), signal.SIGINT)\n"
        "else:\n"
        "    (folder / 'ready').touch()\n"
        "time.sleep(600)"
    )
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        pytest.skip("SIGINT is ignored here, as in the background")
    done = launch(lines, "--nproc_per_node", "2", "--max_restarts", "3")
    assert done.returncode == 130
    assert sorted(path.name for path in tmp_path.glob("saved_*")) == ["saved_0", "saved_1"]
    assert not list(tmp_path.glob("start_1_*"))


def test_a_signal_that_comes_while_processes_are_started_reaches_all(tmp_path, monkeypatch):
    started = Supervisor._started

    def one_then_a_signal(self, start, local):
        process = started(self, start, local)
        if local == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return process

    monkeypatch.setattr(Supervisor, "_started", one_then_a_signal)
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    assert Supervisor(command, [{}, {}], tmp_path, Rendezvous(2)).run() == 128 + signal.SIGTERM


def test_of_processes_that_blame_each_other_the_one_that_knows_more_is_the_cause(launch):
    lines = "import time\n"
    lines += "if rank == 0:\n    sys.exit(print('process 1 ended; see its message', file=sys.stderr) or 6)\n"
    lines += "time.sleep(0.5)\nprint('process 1 has lost its connection', file=sys.stderr)\nsys.exit(6)"
    done = launch(lines, "--nproc_per_node", "2")
    assert done.returncode == 6
    assert "launch: process 1 failed: process 1 has lost its connection (exit code 6)" in done.stderr


def test_a_process_that_has_ended_too_early_is_named(launch):
    lines = "if rank == 1:\n    (folder / 'left').touch()\n    sys.exit(0)\n"
    lines += "import time\nwhile not (folder / 'left').exists():\n    time.sleep(0.01)\n"
    lines += "time.sleep(1)\nprint('process 0 has lost its connection', file=sys.stderr)\nsys.exit(6)"
    done = launch(lines, "--nproc_per_node", "2")
    assert done.returncode == 6
    assert "launch: process 1 had ended before, with exit code 0; " in done.stderr


def test_what_paddle_prints_is_no_cause(launch):
    lines = "print('I1121 20:52:12.494059  5009 tcp_store.cc:336] create libuv server at port: 28840\\n=====\\n"
    lines += "FLAGS(name=1)\\n======', file=sys.stderr)\nsys.exit(9)"
    done = launch(lines)
    assert "launch: process 0 failed: exit code 9, without a message (exit code 9)" in done.stderr


def test_no_process_outlives_a_launcher_that_is_killed(tmp_path, launch):
    lines = "import signal, time\n(folder / f'pid_{rank}').write_text(str(os.getpid()))\n"
    lines += "while len(list(folder.glob('pid_*'))) < 2:\n    time.sleep(0.01)\n"
    lines += "if rank == 0:\n    os.kill(os.getppid(), 9)\ntime.sleep(600)"
    assert launch(lines, "--nproc_per_node", "2").returncode == -signal.SIGKILL
    for path in tmp_path.glob("pid_*"):
        with suppress(ProcessLookupError):
            process = os.pidfd_open(int(path.read_text()))
            ended, _, _ = select.select([process], [], [], 60)
            os.close(process)
            assert ended, f"{path.name} lives on"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nnodes", "2"], "--nnodes: several machines need --master"),
        (["--nnodes", "2", "--rank", "2", "--master", "h:1"], "--rank: 2, but machines are numbered from 0 to 1"),
        (["--nnodes", "2", "--master", "10.0.0.1"], "--master: 10.0.0.1; expected an address and a port"),
    ],
)
def test_what_makes_no_sense_is_one_line(launch, options, message):
    done = launch("", *options)
    assert done.returncode == 2
    assert done.stderr.startswith(message) and len(done.stderr.splitlines()) == 1


def test_starts_again_only_what_goes_on_from_its_checkpoint():
    words = ["tools/launch.py", "--devices", "cpu", "--max_restarts", "3", "tools/train.py"]
    words += ["-c", "configs/quick_start/digits.yaml"]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("--max_restarts: every start would begin anew; add -o Global.checkpoints=auto")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nproc_per_node", "x", "a.py"], "--nproc_per_node: expected 1 or more; got x"),
        (["--max_restarts", "-1", "a.py"], "--max_restarts: expected 0 or more; got -1"),
        (["--grace", "-1", "a.py"], "--grace: expected 0 or more; got -1"),
        (["--restart_wait", "nan", "a.py"], "--restart_wait: expected 0 or more; got nan"),
        (["--nproc_per_node", "2"], "the following arguments are required: script"),
    ],
)
def test_a_wrong_option_says_what_is_expected(words, message):
    command = [sys.executable, "tools/launch.py", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith(f"{message}\n")


@pytest.mark.promise("F33")
def test_the_environment_is_written_nowhere(launch, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "CANARY5f1e0c")
    done = launch("sys.exit(3)", "--nproc_per_node", "2")
    assert done.returncode == 3
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "script.py"]
    assert {"rank_0.log", "rank_1.log"} <= {path.name for path in written}
    assert not [path for path in written if "CANARY5f1e0c" in path.read_text()]
    assert "CANARY5f1e0c" not in done.stdout + done.stderr


FOUR = Accelerators(["0", "1", "2", "3"], "FLAGS_selected_gpus")


def test_each_process_has_a_device_of_its_own_and_a_single_one_may_have_several():
    assert FOUR.shares(None, 2) == [{"FLAGS_selected_gpus": "0"}, {"FLAGS_selected_gpus": "1"}]
    assert FOUR.shares("2, 3", None) == [{"FLAGS_selected_gpus": "2"}, {"FLAGS_selected_gpus": "3"}]
    assert FOUR.shares("1,3", 1) == [{"FLAGS_selected_gpus": "1,3"}]
    assert Accelerators(["4", "7"], "FLAGS_selected_gpus").shares("7", None) == [{"FLAGS_selected_gpus": "1"}]
    assert Accelerators().shares(None, 2) == [{"PADDLE_DISTRI_BACKEND": "gloo"}] * 2


@pytest.mark.parametrize(
    ("found", "wanted", "number", "message"),
    [
        (FOUR, "4", None, "--devices: 4 not on this machine; there is devices 0, 1, 2, 3"),
        (Accelerators(), "0,1", None, "--devices: 0, 1 not on this machine; there is no device but the CPU"),
        (FOUR, "0,1", 3, "--nproc_per_node: 3 processes, but 2 devices (0, 1)"),
        (FOUR, None, 8, "--nproc_per_node: 8 processes, but 4 devices"),
    ],
)
def test_devices_that_are_not_there_are_refused(found, wanted, number, message):
    with pytest.raises(ConfigError) as refused:
        found.shares(wanted, number)
    assert str(refused.value).startswith(message)


def meet(number, master, num_nodes=2, job="toy", outcome=None, decide=lambda outcomes: None):
    rendezvous = Rendezvous(2, number, num_nodes, master, job, patience=20.0)
    try:
        return rendezvous.agree(outcome or Outcome(), decide)
    except ConfigError as error:
        return error
    finally:
        rendezvous.close()


def together(*calls):
    results = [None] * len(calls)

    def run(index):
        results[index] = calls[index]()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_machines_agree_on_a_start_whatever_they_come_in():
    master = f"127.0.0.1:{free_ports(1)[0]}"

    # A stranger, and a machine that has died while it waited, are in nobody's way.
    def stranger():
        host, port = master.split(":")
        while True:
            try:
                with socket.create_connection((host, int(port)), 1) as guest:
                    guest.sendall(b"GET / HTTP/1.0\n")
                    return
            except ConnectionRefusedError:
                continue

    *starts, _ = together(*(lambda number=number: meet(number, master, 3) for number in (2, 0, 1)), stranger)
    third, first, second = starts
    assert [start.first for start in (first, second, third)] == [0, 2, 4]
    assert first.ends == second.ends == third.ends and len(set(first.ends)) == 6
    assert first.store == second.store == third.store
    assert int(first.store.rpartition(":")[2]) in FREE_PORTS


def test_the_first_machine_decides_for_all():
    master = f"127.0.0.1:{free_ports(1)[0]}"
    seen = {}

    def decide(outcomes):
        seen.update(outcomes)
        return Verdict(3, "no")

    both = together(
        lambda: meet(0, master, outcome=Outcome(6, "a"), decide=decide),
        lambda: meet(1, master, outcome=Outcome(3, "b")),
    )
    assert both == [Verdict(3, "no"), Verdict(3, "no")]
    assert seen == {0: Outcome(6, "a"), 1: Outcome(3, "b")}


def test_who_waits_for_the_first_machine_says_so_once():
    said = []
    rendezvous = Rendezvous(1, 1, 2, "127.0.0.1:1", patience=1.0)
    rendezvous.say = said.append
    with pytest.raises(PeerError, match="the first machine does not answer at 127.0.0.1:1"):
        rendezvous.agree(Outcome(), lambda outcomes: None)
    assert len(said) == 1 and said[0].startswith("waiting for the first machine at 127.0.0.1:1 (")


def test_a_machine_of_another_job_is_refused():
    master = f"127.0.0.1:{free_ports(1)[0]}"

    def strangers_first():
        refused = meet(1, master, job="other")
        return refused, meet(1, master)

    first, (refused, second) = together(lambda: meet(0, master), strangers_first)
    assert str(refused) == (f"--master: job toy of 2 machines meets at {master}, and this is machine 1 of job other")
    assert first.ends == second.ends
