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
    "DataLoader.Train.sampler.batch_size=4",
    "EMA={decay: 0.9}",
    "Arch.dropout=0.3",
]
AT_ONCE = 2
HALF = 150
"""Bytes after which a file is cut off; every file of a checkpoint is longer."""


def arguments(place):
    return command(place.parent / "toy.yaml", [*SETTINGS, f"Global.output_dir={place / 'output'}"])


def evenly(number, things):
    """So many of the things, spread evenly; all of them if they are not more."""
    number = min(number, len(things))
    return [things[index * len(things) // number] for index in range(number)]


@pytest.fixture(scope="module")
def known(tmp_path_factory, trainings):
    """A run up to the end of its first epoch, the same to its end, and what the second epoch does to the disk."""
    folder = tmp_path_factory.mktemp("saving")
    toys.write_yaml(folder, toys.write_data(folder / "data", 24))
    whole, begun, events = (folder / name for name in ("whole", "begun", "events"))
    for place in (whole, begun):
        (place / "records").mkdir(parents=True)
    trainings.run(arguments(whole), whole / "log", RECORD_TO=str(whole / "records"))
    here = {"RECORD_TO": str(begun / "records"), "KILL_AT_PLACE": "2,1", "KILL_WHEN": str(begun / "output" / "epoch_1")}
    assert trainings.start(arguments(begun), begun / "log", **here).wait() == [-signal.SIGKILL]
    shutil.copytree(begun, events)
    here = {"RECORD_TO": str(events / "records"), "KILL_AT_EVENT": "0", "KILL_UNDER": str(events / "output")}
    trainings.run(arguments(events), events / "log", **here)
    (file,) = (events / "records").glob("events-*")
    return SimpleNamespace(
        folder=folder,
        whole=whole / "output",
        begun=begun,
        figures=figures(whole / "output"),
        streams=streams(whole / "records"),
        events=file.read_text().splitlines(),
    )


def last_update(place):
    """The last update that was made, by any attempt."""
    return max(line["step"] for stream in streams(place / "records").values() for line in stream.values())


def newest_update(output):
    """The update of the newest checkpoint; all that are there are whole."""
    names = [path.name for path in checkpoints_in(output)]
    updates = {"epoch_1": 3, "epoch_2": 6, **{f"epoch_{1 + step // 3}_step_{step}": step for step in (1, 2, 4, 5)}}
    return max(updates[name] for name in names)


def killed_at(trainings, known, event, how):
    """Kill the second epoch at an event, look at what is there, and let it go on."""
    place = known.folder / f"{event}_{how}"
    shutil.copytree(known.begun, place)
    here = {"KILL_AT_EVENT": str(event), "KILL_UNDER": str(place / "output"), "RECORD_TO": str(place / "records")}
    here |= {"KILL_AFTER_BYTES": str(HALF)} if how == "inside" else {}
    try:
        codes = trainings.start(arguments(place), place / "log", **here).wait()
        if codes == [0]:
            # What it writes from there on may all be short; and other threads may change the number of events.
            assert how == "inside" or event > 0.9 * len(known.events)
        else:
            assert codes in ([-signal.SIGKILL], [-signal.SIGXFSZ])
        assert_nothing_half_done_has_a_name(place / "output")
        made, newest = last_update(place), newest_update(place / "output")
        begun = max(BEGUN, *(step for step in SAVED_AFTER if step <= made))
        assert newest >= max(BEGUN, *(step for step in SAVED_AFTER if step < begun)), f"of {made} updates"
        trainings.run(arguments(place), place / "log", RECORD_TO=str(place / "records"))
        assert_same_files(place / "output", known.whole)
        assert figures(place / "output") == known.figures
        assert streams(place / "records") == known.streams
    except AssertionError as error:
        told = known.events[event - 1]
        raise AssertionError(f"killed {how} event {event}, {told!r}, in {place}: {error}") from error
    shutil.rmtree(place)


@pytest.mark.promise("F02")
def test_a_run_killed_at_any_step_of_saving_pruning_or_resuming_goes_on(trainings, known, times, counted):
    numbers = range(1, len(known.events) + 1)
    writes = [number for number in numbers if known.events[number - 1].startswith("write ")]
    before, inside = evenly(times(18, 1000), numbers), evenly(times(6, 1000), writes)
    trials = [(number, "before") for number in before] + [(number, "inside") for number in inside]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda trial: killed_at(trainings, known, *trial), trials))
    counted(len(trials))


def test_the_steps_are_those_of_resuming_saving_and_pruning(known):
    text = "\n".join(known.events)
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
