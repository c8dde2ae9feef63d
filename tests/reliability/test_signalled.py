# SPDX-License-Identifier: Apache-2.0
"""Real trainings are signalled at any moment; the same command goes on as if nothing had happened."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import toys
from forked import ROOT, SECONDS, TOYS, command
from same_run import assert_every_sample_once, figures, streams

from ppcls.engine.run_directory import checkpoints_in

TERM, INT, USR1 = signal.SIGTERM, signal.SIGINT, signal.SIGUSR1
EPOCHS, NUM_SAMPLES, GLOBAL_BATCH = 3, 32, 4
SETTINGS = [
    "Global.imports=[toy_arch, toy_signals, recorder]",
    "Global.checkpoints=auto",
    f"Global.epochs={EPOCHS}",
    "Global.print_batch_step=1",
    "Global.update_freq=2",
    "EMA={decay: 0.9}",
    "Arch.dropout=0.3",
    "DataLoader.Train.dataset.batch_transform_ops=[{MixupOperator: {alpha: 0.4}}]",
]
AT_ONCE = 2
ENDED = {TERM: 143, INT: 130}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signalled")
    toys.write_yaml(folder, toys.write_data(folder / "data", NUM_SAMPLES))
    return folder


def arguments(folder, name, ranks, workers=0):
    """The command line of a training, the same for every attempt."""
    here = [f"Global.output_dir={folder / name / 'output'}"]
    here += [f"DataLoader.Train.sampler.batch_size={GLOBAL_BATCH // ranks}"]
    here += [f"DataLoader.Train.loader.num_workers={workers}", f"DataLoader.Eval.loader.num_workers={workers}"]
    return command(folder / "toy.yaml", SETTINGS + here)


@pytest.fixture(scope="module")
def uninterrupted(folder, trainings):
    """For a number of ranks: what nothing happened to, and the seconds from its first batch to its end."""
    known = {}

    def run(ranks):
        if ranks not in known:
            place = folder / f"whole_{ranks}"
            (place / "records").mkdir(parents=True)
            words = arguments(folder, place.name, ranks)
            trainings.run(words, place / "log", ranks, RECORD_TO=str(place / "records"))
            lines = (place / "output" / "train.jsonl").read_text().splitlines()
            times = [json.loads(line)["time"] for line in lines]
            known[ranks] = SimpleNamespace(output=place / "output", seconds=times[-1] - times[0])
            known[ranks].figures, known[ranks].streams = figures(place / "output"), streams(place / "records")
        return known[ranks]

    return run


def assert_same_training(place, whole):
    """The weights at the end, all that was logged, and every image of every batch."""
    for name in (f"epoch_{EPOCHS}", "best_model"):
        assert toys.digests(place / "output" / name) == toys.digests(whole.output / name), name
    assert figures(place / "output") == whole.figures
    found = streams(place / "records")
    assert found == whole.streams
    assert_every_sample_once(found, EPOCHS, NUM_SAMPLES)


def last_step(place):
    """The update that the training was at when it ended."""
    return max((line["step"] for stream in streams(place / "records").values() for line in stream.values()), default=0)


def saved_step(place):
    """The update that the newest checkpoint is of."""
    newest = next(iter(checkpoints_in(place / "output")), None)
    if newest is None:
        return 0
    epoch, _, step = newest.name.removeprefix("epoch_").partition("_step_")
    return int(step or int(epoch) * NUM_SAMPLES // GLOBAL_BATCH // 2)


def signalled_and_continued(start, folder, name, seed, ranks, workers, whole, limit):
    """Signal a training at a random moment, run it to its end and compare it with the whole one."""
    rng = random.Random(seed)
    place = folder / name
    number, how = rng.choice([TERM, INT, USR1]), rng.choice(["one process", "all processes", "all groups"])
    while True:
        (place / "records").mkdir(parents=True)
        training = start(arguments(folder, name, ranks, workers), place / "log", ranks, place / "records")
        until(lambda: [file.stat().st_size > 0 for file in (place / "records").glob("stream-*")] == [True] * ranks)
        moment = rng.uniform(0, whole.seconds)
        told = f"seed {seed!r}, {number.name} to {how} after {moment:.3f} s, {place}"
        if training.wait(moment) is None:
            victim = rng.randrange(ranks)
            for pid in [training.pids[victim]] if how == "one process" else training.pids:
                with suppress(ProcessLookupError):
                    (os.killpg if how == "all groups" else os.kill)(pid, number)
            codes = training.wait(None if number == USR1 else limit)
            log = (place / "log").read_text()
            assert codes is not None, f"{told}: still runs after {limit} s\n{log}"
            if number == USR1 or '"reason": "finished"' not in (place / "output" / "train.jsonl").read_text():
                break
        training.wait()
        shutil.rmtree(place)  # it was faster than the signal: another attempt
    try:
        if number == USR1:
            assert codes == [0] * ranks
        else:
            expected = ENDED[number]
            assert set(codes) <= {expected, ENDED[TERM]} and expected in codes
            assert saved_step(place) == last_step(place), "updates were lost"
            assert "Traceback" not in log
            again = start(arguments(folder, name, ranks, workers), place / "log", ranks, place / "records").wait()
            assert again == [0] * ranks
        assert_same_training(place, whole)
    except AssertionError as error:
        raise AssertionError(f"{told}: exit codes {codes}: {error}\n{(place / 'log').read_text()[-3000:]}") from error
    shutil.rmtree(place)
    return number, how


@pytest.mark.promise("F06")
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_signalled_at_random_moments_equals_one_that_was_not(
    folder, trainings, uninterrupted, times, counted, ranks, workers
):
    number, limit = times((1, SECONDS), (25, 10))
    whole = uninterrupted(ranks)

    def start(arguments, log, ranks, records):
        return trainings.start(arguments, log, ranks, RECORD_TO=str(records))

    def trial(index):
        name = f"{workers}_{ranks}_{index}"
        return signalled_and_continued(start, folder, name, f"signal {name}", ranks, workers, whole, limit)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        print(sorted(pool.map(trial, range(number))))
    counted(number)


@pytest.mark.promise("F06")
@pytest.mark.parametrize(("first", "second"), [(TERM, TERM), (INT, INT), (INT, TERM)])
def test_a_second_signal_ends_a_training_at_once(folder, trainings, uninterrupted, times, counted, first, second):
    number, limit = times((1, SECONDS), (10, 2))
    for index in range(number):
        place = folder / f"twice_{first}_{second}_{index}"
        (place / "records").mkdir(parents=True)
        words, environment = arguments(folder, place.name, 1, 2), {"RECORD_TO": str(place / "records")}
        training = trainings.start(
            words, place / "log", WAIT_AT="2,5", WAIT_IN=str(place), HANG="in C, not in Python", **environment
        )
        until((place / "waits_0").exists)
        os.kill(training.pids[0], first)
        until(lambda log=place / "log": f"{first.name}: saving after this update" in log.read_text())
        time.sleep(0.2)  # as a person would at the fastest; what comes sooner counts as one
        os.kill(training.pids[0], second)
        assert training.wait(limit) == [ENDED[second]]
        assert f"{second.name}: given twice, ending at once" in (place / "log").read_text()
        assert saved_step(place) == 4
        trainings.run(words, place / "log", **environment)
        assert "ended without a word" in (place / "log").read_text()
        assert_same_training(place, uninterrupted(1))
    counted(number)


def until(is_so):
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def spawn():
    """Start Python as a person does; what is left of it in the end is killed."""
    started = []

    def start(command, log, **environment):
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("PADDLE_", "CUDA_"))}
        own = {"PYTHONPATH": f"{ROOT}{os.pathsep}{TOYS}", "OMP_NUM_THREADS": "1", **environment}
        words = [sys.executable, *map(str, command)]
        with open(log, "a") as file:
            started.append(
                subprocess.Popen(
                    words, cwd=ROOT, env={**clean, **own}, stdout=file, stderr=file, start_new_session=True
                )
            )
        return started[-1]

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.promise("F06")
@pytest.mark.parametrize(("receiver", "code"), [("launcher", TERM), ("process", 143)])
def test_two_processes_under_the_launcher_save_the_same_update(folder, trainings, uninterrupted, spawn, receiver, code):
    place = folder / f"launched_{receiver}"
    (place / "records").mkdir(parents=True)
    words, environment = arguments(folder, place.name, 2, 2), {"RECORD_TO": str(place / "records")}
    options = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", place / "logs"]
    command = [*options, "tools/train.py", *words]
    launcher = spawn(command, place / "log", WAIT_AT="2,3", WAIT_IN=str(place), **environment)
    until(lambda: len(list(place.glob("waits_*"))) == 2)
    pids = [int((place / f"waits_{rank}").read_text()) for rank in range(2)]
    os.kill(launcher.pid if receiver == "launcher" else pids[1], TERM)
    for rank in (0, 1) if receiver == "launcher" else (1,):
        log = place / "logs" / f"workerlog.{rank}"
        until(lambda log=log: "SIGTERM: saving after this update" in log.read_text())
    (place / "go").touch()
    # Paddle 3.3.1's launcher ends with the number of a signal that it was sent itself.
    assert launcher.wait(SECONDS) == code, (place / "log").read_text()
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids))
    logs = [(place / "logs" / f"workerlog.{rank}").read_text() for rank in range(2)]
    assert all("Traceback" not in log and "stopped by signal 15 (SIGTERM)" in log for log in logs), logs
    assert saved_step(place) == last_step(place) == 4 + 2
    trainings.run(words, place / "log", 2, **environment)
    assert_same_training(place, uninterrupted(2))


def test_a_signal_to_a_whole_job_ends_an_evaluation_in_a_line(folder, uninterrupted, spawn):
    place = folder / "evaluated"
    place.mkdir()
    settings = ["Global.imports=[toy_arch, toy_signals]", f"Global.output_dir={place / 'output'}"]
    settings += [
        f"Global.pretrained_model={uninterrupted(1).output / 'best_model'}",
        "DataLoader.Eval.loader.num_workers=2",
    ]
    words = ["tools/eval.py", *command(folder / "toy.yaml", settings)]
    tool = spawn(words, place / "log", WAIT_AT="evaluation", WAIT_IN=str(place))
    until((place / "waits_0").exists)
    children = Path(f"/proc/{tool.pid}/task/{tool.pid}/children").read_text().split()
    assert len(children) == 2
    os.killpg(tool.pid, TERM)
    assert tool.wait(SECONDS) == 143
    assert (place / "log").read_text().splitlines()[-1] == "stopped by signal 15 (SIGTERM)"
    assert "Traceback" not in (place / "log").read_text()
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children))
