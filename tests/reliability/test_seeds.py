# SPDX-License-Identifier: Apache-2.0
"""The same seed gives the same run, in every process that runs it; other seeds give others."""

import itertools
import os
import subprocess
import sys

import pytest
import toys
from forked import ROOT, SECONDS, TOYS, command
from same_run import figures, streams

SETTINGS = ["Global.imports=[toy_arch, recorder]", "Global.print_batch_step=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    toys.write_yaml(folder, toys.write_data(folder / "data"))
    return folder


@pytest.fixture(scope="module")
def run(trainings, folder):
    """Train with a seed; gives the order of the samples, what was trained on and logged, and hashes of the weights."""

    def run(name, seed, as_command=False):
        place = folder / name
        (place / "records").mkdir(parents=True)
        words = command(
            folder / "toy.yaml", [*SETTINGS, f"Global.seed={seed}", f"Global.output_dir={place / 'output'}"]
        )
        here = {"RECORD_TO": str(place / "records")}
        if as_command:
            # Sets of texts have another order in each process, unless that is told.
            here |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{TOYS}", "PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"}
            subprocess.run(
                [sys.executable, "tools/train.py", *map(str, words)],
                cwd=ROOT,
                env={**os.environ, **here},
                stdout=subprocess.DEVNULL,
                timeout=SECONDS,
                check=True,
            )
        else:
            trainings.run(words, place / "log", **here)
        found = streams(place / "records")
        digests = toys.digests(place / "output" / "epoch_2")
        order = [line["ids"] for _, line in sorted(found[0].items())]
        return order, (found, figures(place / "output")), digests

    return run


@pytest.fixture(scope="module")
def first(run):
    """The run with the first seed."""
    return run("first", 7)


@pytest.mark.promise("F05")
def test_the_same_seed_gives_the_same_run(run, first, counted):
    others = [run(f"again_{number}", 7, as_command=number == 0) for number in range(4)]
    for other in others:
        assert other == first
    counted(1 + len(others))


@pytest.mark.promise("F05")
def test_each_two_of_five_seeds_give_different_runs(run, first, counted):
    runs = [first, *(run(f"seed_{seed}", seed) for seed in (0, 1, 2, 8))]
    pairs = list(itertools.combinations(runs, 2))
    for (one_order, _, one), (other_order, _, other) in pairs:
        assert one_order != other_order
        assert one["model.safetensors"] != other["model.safetensors"]
    counted(len(pairs))
