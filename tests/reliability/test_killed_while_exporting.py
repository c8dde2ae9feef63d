# SPDX-License-Identifier: Apache-2.0
"""An export is killed at every step of publishing: whoever then reads finds the bundle before, or the new one.

The steps are what CPython reports of the directory (audit events) before it does it, as in the tests of saving; and
moments at random, in which Paddle's own code may be writing.
"""

import random
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import toys
from forked import command

from ppcls.deploy.bundle import load_bundle
from ppcls.utils.leftovers import clear_after_the_dead

pytest.importorskip("paddle2onnx")
pytest.importorskip("onnxruntime")

AT_ONCE = 2
HALF = 150
"""Bytes after which a file is cut off."""
NAME = "net"


def arguments(folder, weights, place):
    settings = ["Global.imports=[toy_arch, recorder, export_here]", "Global.export_for=[onnxruntime]"]
    settings += [f"Global.output_dir={place}", f"Global.save_inference_dir={place / 'bundles' / NAME}"]
    return command(folder / "toy.yaml", [*settings, f"Global.pretrained_model={weights}"])


def content(bundle):
    """What the files of a bundle hold that is the same for every export of the same weights; all is verified."""
    load_bundle(bundle)
    return {name: digest for name, digest in toys.digests(bundle).items() if name != "manifest.json"}


def known_steps(trained, trainings, name, **environment):
    """What happens when the bundle of the second weights takes the place of that of the first."""
    folder = trained.folder / name
    place, records = folder / "place", folder / "records"
    records.mkdir(parents=True)
    shutil.copytree(trained.before, place / "bundles")
    counting = {"KILL_AT_EVENT": "0", "KILL_UNDER": str(place / "bundles"), "RECORD_TO": str(records)}
    trainings.run(
        arguments(trained.root, trained.weights[1], place),
        folder / "log",
        tool="export_model",
        **counting,
        **environment,
    )
    contents = [content(trained.before / NAME), content(place / "bundles" / NAME)]
    assert contents[0].keys() == contents[1].keys() and contents[0] != contents[1]
    (events,) = records.glob("events-*")
    known = {"folder": folder, "contents": contents, "environment": environment}
    return SimpleNamespace(**{**vars(trained), **known}, events=events.read_text().splitlines())


@pytest.fixture(scope="module")
def trained(tmp_path_factory, trainings):
    """Weights after one epoch and after two, and a bundle of the first."""
    folder = tmp_path_factory.mktemp("exporting")
    toys.write_yaml(folder, toys.write_data(folder / "data", 24))
    trainings.run(command(folder / "toy.yaml", ["Global.epochs=2", "Global.save_interval=1"]), folder / "log")
    weights = [folder / "output" / "epoch_1", folder / "output" / "epoch_2"]
    place = folder / "first"
    trainings.run(arguments(folder, weights[0], place), folder / "log", tool="export_model")
    return SimpleNamespace(root=folder, folder=folder, weights=weights, before=place / "bundles")


@pytest.fixture(scope="module")
def known(trained, trainings):
    return known_steps(trained, trainings, "known")


@pytest.fixture(scope="module")
def known_without_exchange(trained, trainings):
    """The same on a file system where one directory has to go before the other can come."""
    return known_steps(trained, trainings, "in_two", WITHOUT_EXCHANGE="1")


def evenly(number, things):
    """So many of the things, spread evenly; all of them if they are not more."""
    number = min(number, len(things))
    return [things[index * len(things) // number] for index in range(number)]


def steps(known, number, number_inside):
    """(Number of an event, before it or inside), spread evenly; those around the renames are always there."""
    numbers = range(1, len(known.events) + 1)
    renames = [each for each in numbers if known.events[each - 1].startswith("os.rename")]
    around = {each + more for each in renames for more in (0, 1) if each + more in numbers}
    writes = [each for each in numbers if known.events[each - 1].startswith("write ")]
    return [(each, "before") for each in sorted({*around, *evenly(number, numbers)})] + [
        (each, "inside") for each in evenly(number_inside, writes)
    ]


def killed(trainings, known, event, how, is_first=False, seconds=None):
    """Kill an export at an event, or after so many seconds, and look at what a reader finds."""
    place = known.folder / f"{event}_{how}_{is_first}"
    (place / "records").mkdir(parents=True)
    bundles = place / "bundles"
    if not is_first:
        shutil.copytree(known.before, bundles)
    environment = {"RECORD_TO": str(place / "records"), **known.environment}
    if seconds is None:
        environment |= {"KILL_AT_EVENT": str(event), "KILL_UNDER": str(bundles)}
    if how == "inside":
        environment["KILL_AFTER_BYTES"] = str(HALF)
    begun = arguments(known.root, known.weights[1], place)
    try:
        export = trainings.start(begun, place / "log", tool="export_model", **environment)
        if seconds is not None:
            export.wait(seconds)
            export.kill()
        (code,) = export.wait()
        # In the middle of a file or at random it may have come to its end; and a first export has fewer events.
        may_end = is_first or how != "before"
        assert code in (-signal.SIGKILL, -signal.SIGXFSZ, *([0] if may_end else [])), export.told(code)
        if is_first and not (bundles / NAME).exists():
            assert code != 0
        else:
            assert content(bundles / NAME) in (known.contents if not is_first and code else known.contents[1:])
        if bundles.exists():
            found = content(bundles / NAME) if (bundles / NAME).exists() else None
            clear_after_the_dead(bundles / NAME)
            assert [path.name for path in bundles.iterdir()] == ([NAME] if found else [])
            assert found is None or content(bundles / NAME) == found
    except AssertionError as error:
        where = f"event {event}, {known.events[event - 1]!r}" if seconds is None else f"{seconds} seconds"
        raise AssertionError(f"killed {how} {where}, in {place}: {error}") from error
    shutil.rmtree(place)


def all_killed(trainings, known, trials):
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda trial: killed(trainings, known, *trial), trials))


@pytest.mark.promise("F35")
def test_an_export_killed_at_any_step_leaves_the_bundle_before_or_the_new_one(trainings, known, times, counted):
    trials = steps(known, times(8, 1000), times(3, 1000))
    all_killed(trainings, known, trials)
    counted(len(trials))


@pytest.mark.promise("F35")
def test_a_first_export_killed_at_any_step_leaves_a_bundle_or_none(trainings, known, times, counted):
    before, inside = ([trial for trial in steps(known, 1000, 1000) if trial[1] == how] for how in ("before", "inside"))
    trials = [(*trial, True) for trial in evenly(times(2, 1000), before) + evenly(times(1, 1000), inside)]
    all_killed(trainings, known, trials)
    counted(len(trials))


@pytest.mark.promise("F35")
def test_where_directories_cannot_be_exchanged_a_reader_puts_back_what_was_there(
    trainings, known_without_exchange, times, counted
):
    trials = steps(known_without_exchange, times(1, 1000), times(0, 1000))
    all_killed(trainings, known_without_exchange, trials)
    counted(len(trials))


@pytest.mark.promise("F35")
def test_an_export_killed_at_any_moment_leaves_the_bundle_before_or_the_new_one(trainings, known, times, counted):
    draw = random.Random(0)
    trials = [(number, "at random", False, 2 * draw.random()) for number in range(times(2, 100))]
    all_killed(trainings, known, trials)
    counted(len(trials))


@pytest.mark.promise("F35")
def test_the_next_export_clears_up_and_takes_its_place(trainings, known):
    place = known.folder / "next"
    (place / "records").mkdir(parents=True)
    shutil.copytree(known.before, place / "bundles")
    begun = arguments(known.root, known.weights[1], place)
    rename = next(number for number, event in enumerate(known.events, 1) if event.startswith("os.rename"))
    kill = {"KILL_AT_EVENT": str(rename), "KILL_UNDER": str(place / "bundles"), "RECORD_TO": str(place / "records")}
    assert trainings.start(begun, place / "log", tool="export_model", **kill).wait() == [-signal.SIGKILL]
    assert len(list((place / "bundles").iterdir())) == 2
    trainings.run(begun, place / "log", tool="export_model")
    assert [path.name for path in (place / "bundles").iterdir()] == [NAME]
    assert content(place / "bundles" / NAME) == known.contents[1]


def test_the_steps_are_those_of_an_export(known):
    text = "\n".join(known.events)
    for step in (
        f"os.mkdir .{NAME}.partial-",
        f"write .{NAME}.partial-",
        f"fsync .{NAME}.partial-",
        f"os.rename {NAME}",
        f"os.rmdir .{NAME}.partial-",  # the bundle before
    ):
        assert step in text, text
