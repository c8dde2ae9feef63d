# SPDX-License-Identifier: Apache-2.0
"""A training is killed at every step of saving, pruning and resuming: there is always a checkpoint to go on from.

The steps are what CPython itself reports of the output directory (audit events), before it does it: everything that
is opened, made, renamed, removed or listed; and syncs. Where a file is opened to be written there is a second trial,
in which the process ends in the middle of writing it.
"""

import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import toys
from forked import command
from same_run import assert_nothing_half_done_has_a_name, assert_same_files, figures, streams

from ppcls.engine.run_directory import checkpoints_in

# 24 images in 3 updates of 2 x 4; saved after the updates 2, 3 (the end of an epoch), 4 and 6. Two are kept.
SAVED_AFTER, BEGUN = (2, 3, 4, 6), 3
SETTINGS = [
    "Global.imports=[toy_arch, recorder]",
    "Global.checkpoints=auto",
    "Global.epochs=2",
    "Global.print_batch_step=1",
    "Global.update_freq=2",
    "Global.save_step_interval=2",
    "Global.save_interval=0",
    "EMA={decay: 0.9}",
    "Arch.dropout=0.3",
]
AT_ONCE = 2
HALF = 150
"""Bytes after which a file is cut off; every file of a checkpoint is longer."""


def arguments(place, ranks=1):
    here = [f"Global.output_dir={place / 'output'}", f"DataLoader.Train.sampler.batch_size={4 // ranks}"]
    here += [f"Global.save_on_all_ranks={ranks > 1}"]
    return command(place.parent / "toy.yaml", SETTINGS + here)


def evenly(number, things):
    """So many of the things, spread evenly; all of them if they are not more."""
    number = min(number, len(things))
    return [things[index * len(things) // number] for index in range(number)]


def written_by(ranks, output):
    """Where each rank writes its checkpoints."""
    return [output, *(output / f"rank_{rank}" for rank in range(1, ranks))]


def prepare(folder, trainings, ranks):
    """A run up to the end of its first epoch, the same to its end, and what the second epoch does to the disk."""
    toys.write_yaml(folder, toys.write_data(folder / "data", 24))
    whole, begun, events = (folder / name for name in ("whole", "begun", "events"))
    for place in (whole, begun):
        (place / "records").mkdir(parents=True)
    trainings.run(arguments(whole, ranks), whole / "log", ranks, RECORD_TO=str(whole / "records"))
    own = {
        rank: {"KILL_WHEN": str(directory / "epoch_1")}
        for rank, directory in enumerate(written_by(ranks, begun / "output"))
    }
    here = {"RECORD_TO": str(begun / "records"), "KILL_AT_PLACE": "2,1"}
    codes = trainings.start(arguments(begun, ranks), begun / "log", ranks, own, **here).wait()
    assert codes == [-signal.SIGKILL] * ranks
    shutil.copytree(begun, events)
    here = {"RECORD_TO": str(events / "records"), "KILL_AT_EVENT": "0", "KILL_UNDER": str(events / "output")}
    trainings.run(arguments(events, ranks), events / "log", ranks, **here)
    return SimpleNamespace(
        ranks=ranks,
        folder=folder,
        whole=whole / "output",
        begun=begun,
        figures=figures(whole / "output"),
        streams=streams(whole / "records"),
        events=[file.read_text().splitlines() for file in sorted((events / "records").glob("events-*"))],
    )


@pytest.fixture(scope="module")
def known(tmp_path_factory, trainings):
    return prepare(tmp_path_factory.mktemp("saving"), trainings, 1)


@pytest.fixture(scope="module")
def known_together(tmp_path_factory, trainings):
    """The same of two processes, each of which keeps its own checkpoints."""
    return prepare(tmp_path_factory.mktemp("saving_together"), trainings, 2)


def last_update(place):
    """The last update that was made, by any attempt."""
    return max(line["step"] for stream in streams(place / "records").values() for line in stream.values())


def newest_update(output):
    """The update of the newest checkpoint; all that are there are whole."""
    names = [path.name for path in checkpoints_in(output)]
    updates = {"epoch_1": 3, "epoch_2": 6, **{f"epoch_{1 + step // 3}_step_{step}": step for step in (1, 2, 4, 5)}}
    return max(updates[name] for name in names)


def killed_at(trainings, known, rank, event, how):
    """Kill the second epoch at an event of one rank, look at what is there, and let it go on."""
    ranks, events = known.ranks, known.events[rank]
    place = known.folder / f"{rank}_{event}_{how}"
    shutil.copytree(known.begun, place)
    own = {rank: {"KILL_AT_EVENT": str(event), "KILL_UNDER": str(place / "output")}}
    own[rank] |= {"KILL_AFTER_BYTES": str(HALF)} if how == "inside" else {}
    here = {"RECORD_TO": str(place / "records")}
    try:
        training = trainings.start(arguments(place, ranks), place / "log", ranks, own, **here)
        training.wait_for(rank)
        # The others find it out, or wait for it.
        training.wait(0.5)
        training.kill()
        code = training.wait()[rank]
        if code == 0:
            # What it writes from there on may all be short; and other threads may change the number of events.
            assert how == "inside" or event > 0.9 * len(events)
        else:
            assert code in (-signal.SIGKILL, -signal.SIGXFSZ), training.told(code)
        # One checkpoint is written while the training goes on, and the one before it is there by then.
        made = last_update(place)
        safe = max([step for step in SAVED_AFTER if step < made][:-1], default=0)
        for directory in written_by(ranks, place / "output"):
            assert_nothing_half_done_has_a_name(directory)
            newest = newest_update(directory)
            assert newest >= max(BEGUN, safe), f"{made} updates were made, of {newest} there is a checkpoint"
        trainings.run(arguments(place, ranks), place / "log", ranks, **here)
        first, *others = zip(*(written_by(ranks, output) for output in (place / "output", known.whole)))
        assert_same_files(*first, num_same=1 if ranks > 1 else None)
        for parts, whole in others:
            # One that was killed may go on from what the first one wrote, and lack the checkpoint of that place.
            if (parts / "epoch_2").exists():
                assert_same_files(parts, whole, num_same=1)
        assert figures(place / "output") == known.figures
        assert streams(place / "records") == known.streams
    except AssertionError as error:
        raise AssertionError(f"killed {how} event {event}, {events[event - 1]!r}, in {place}: {error}") from error
    shutil.rmtree(place)


def trials_of(events, rank, num_before, num_inside):
    """(Rank, number of an event, before it or inside): spread evenly."""
    numbers = range(1, len(events) + 1)
    writes = [number for number in numbers if events[number - 1].startswith("write ")]
    return [(rank, number, "before") for number in evenly(num_before, numbers)] + [
        (rank, number, "inside") for number in evenly(num_inside, writes)
    ]


@pytest.mark.promise("F02")
def test_a_run_killed_at_any_step_of_saving_pruning_or_resuming_goes_on(trainings, known, times, counted):
    trials = trials_of(known.events[0], 0, times(18, 1000), times(6, 1000))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda trial: killed_at(trainings, known, *trial), trials))
    counted(len(trials))


@pytest.mark.promise("F02")
def test_processes_that_keep_checkpoints_each_go_on_when_one_is_killed(trainings, known_together, times, counted):
    trials = [
        trial
        for rank, events in enumerate(known_together.events)
        for trial in trials_of(events, rank, times(1, 20), times(1, 5))
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda trial: killed_at(trainings, known_together, *trial), trials))
    counted(len(trials))


def test_the_steps_are_those_of_resuming_saving_and_pruning(known):
    text = "\n".join(known.events[0])
    for step in (
        "open epoch_1/model.safetensors",  # read to be verified, and to be resumed from
        "write .epoch_2_step_4.partial-",
        "fsync .epoch_2_step_4.partial-",
        "os.rename .epoch_2_step_4.partial-",
        "os.rename best_model",  # steps aside for the new one
        "os.rename epoch_1_step_2",  # is not kept
        "os.rmdir .epoch_1_step_2.gone-",
        "os.rename .epoch_2.partial-",
    ):
        assert step in text, text
