# SPDX-License-Identifier: Apache-2.0
"""A training is killed at any moment, and the same command goes on as if nothing had happened."""

import os
import random
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import toys
from forked import ROOT, SECONDS, TOYS, Training, command
from same_run import assert_every_sample_once, assert_same_files, figures, streams

EPOCHS, NUM_SAMPLES, GLOBAL_BATCH = 3, 32, 4
SETTINGS = [
    "Global.imports=[toy_arch, recorder]",
    "Global.checkpoints=auto",
    f"Global.epochs={EPOCHS}",
    "Global.print_batch_step=1",
    "Global.update_freq=2",
    "Global.save_step_interval=1",
    "EMA={decay: 0.9}",
    "Arch.dropout=0.3",
    "DataLoader.Train.dataset.batch_transform_ops=[{MixupOperator: {alpha: 0.4}}]",
]
AT_ONCE = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    toys.write_yaml(folder, toys.write_data(folder / "data", NUM_SAMPLES))
    return folder


def arguments(folder, name, ranks, workers):
    """The command line of a training, the same for every attempt."""
    here = [f"Global.output_dir={folder / name / 'output'}"]
    here += [f"DataLoader.Train.sampler.batch_size={GLOBAL_BATCH // ranks}"]
    here += [f"DataLoader.Train.loader.num_workers={workers}"]
    return command(folder / "toy.yaml", SETTINGS + here)


@pytest.fixture(scope="module")
def uninterrupted(folder, trainings):
    """For a number of ranks and workers: what nothing happened to, and the seconds that it took."""
    known = {}

    def run(ranks, workers):
        if (ranks, workers) not in known:
            place = folder / f"whole_{ranks}_{workers}"
            (place / "records").mkdir(parents=True)
            started = time.monotonic()
            words = arguments(folder, place.name, ranks, workers)
            trainings.run(words, place / "log", ranks, RECORD_TO=str(place / "records"))
            seconds = time.monotonic() - started
            known[ranks, workers] = SimpleNamespace(
                output=place / "output",
                figures=figures(place / "output"),
                streams=streams(place / "records"),
                seconds=seconds,
            )
        return known[ranks, workers]

    return run


class Launched(Training):
    """A training as a person starts it: through Python, or through Paddle's launcher, which is its last process."""

    def __init__(self, arguments, log, ranks, records):
        launcher = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(ranks), "--log_dir", str(log.parent)]
        command = [sys.executable, *(launcher if ranks > 1 else ()), "tools/train.py", *map(str, arguments)]
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("PADDLE_", "CUDA_"))}
        environment = {"PYTHONPATH": f"{ROOT}{os.pathsep}{TOYS}", "OMP_NUM_THREADS": "1", "RECORD_TO": str(records)}
        before = set(os.listdir(records))
        with open(log, "a") as file:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env={**clean, **environment}, stdout=file, stderr=file, start_new_session=True
            )
        pids = [self.process.pid]
        if ranks > 1:
            new = self._wait_for_records(records, before, ranks, log)
            pids = [*(int(name.split("-")[2]) for name in sorted(new)), *pids]
        else:
            self._wait_for_records(records, before, 1, log)
        super().__init__(pids, log, self._ended)

    def _wait_for_records(self, records, before, ranks, log):
        deadline = time.monotonic() + SECONDS
        while len(new := {name for name in os.listdir(records) if name.startswith("stream")} - before) < ranks:
            assert self.process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.01)
        return new

    def _ended(self, pid):
        return self.process.wait() if pid == self.process.pid else 0


def killed_and_continued(start, folder, name, seed, ranks, workers, whole):
    """Kill a training once or more often at random moments, run it to its end and compare it with the whole one."""
    rng = random.Random(seed)
    place = folder / name
    moments = []
    try:
        while True:
            (place / "records").mkdir(parents=True, exist_ok=True)
            to_be_killed = not moments or (len(moments) < 4 and rng.random() < 0.4)
            training = start(arguments(folder, name, ranks, workers), place / "log", ranks, place / "records")
            moment = rng.uniform(0, whole.seconds) if to_be_killed else None
            started = time.monotonic()
            codes = training.wait(moment)
            if codes is None:
                victims = rng.choice([(), (rng.randrange(ranks),)])
                moments.append((round(moment, 3), victims or "all"))
                training.kill(*victims)
                # The others find it out, or wait; a launcher would not wait for them for long either.
                training.wait(0.5)
                training.kill()
                training.wait()
                continue
            assert set(codes) == {0}, training.told(codes)
            if moments:
                break
            # It was faster than the one that was timed, on a busier machine: another attempt.
            whole.seconds = min(whole.seconds, time.monotonic() - started)
            shutil.rmtree(place)
        assert_same_files(place / "output", whole.output)
        assert figures(place / "output") == whole.figures
        found = streams(place / "records")
        assert found == whole.streams
        assert_every_sample_once(found, EPOCHS, NUM_SAMPLES)
    except AssertionError as error:
        raise AssertionError(f"seed {seed!r}, killed after (seconds, ranks) {moments}, {place}: {error}") from error
    shutil.rmtree(place)


@pytest.mark.promise("F01")
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_killed_at_random_moments_equals_one_that_was_not(
    folder, trainings, uninterrupted, times, counted, ranks, workers
):
    number = times(3, 26)
    whole = uninterrupted(ranks, workers)

    def start(arguments, log, ranks, records):
        return trainings.start(arguments, log, ranks, RECORD_TO=str(records))

    def trial(index):
        name = f"{workers}_{ranks}_{index}"
        killed_and_continued(start, folder, name, f"trial {name}", ranks, workers, whole)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(trial, range(number)))
    counted(number)


@pytest.mark.promise("F01")
@pytest.mark.parametrize("ranks", [1, 2])
def test_commands_killed_at_random_moments_go_on_too(folder, uninterrupted, times, counted, ranks):
    number = times(1, 6)
    for index in range(number):
        name = f"command_{ranks}_{index}"
        killed_and_continued(Launched, folder, name, f"trial {name}", ranks, 0, uninterrupted(ranks, 0))
    counted(number)
