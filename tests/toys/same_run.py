# SPDX-License-Identifier: Apache-2.0
"""Holds a training that was killed and run again against one that nothing happened to."""

import json
import os

import toys

from ppcls.engine.run_directory import checkpoints_in
from ppcls.utils.storage import verify

CLOCK = {"time", "ips", "batch_cost", "reader_cost", "eta_seconds"}


def by_place(records, where):
    """Place -> record; a place that comes again, as a run that was killed does it again, has to give the same."""
    found = {}
    for place, record in records:
        assert found.setdefault(place, record) == record, f"{where}: {place} was done again and differs"
    return found


def figures(output):
    """Everything that was logged, by its place, as far as the clock has no part in it; of all attempts."""
    records = []
    for file in sorted(output.glob("**/train.jsonl")):
        for line in file.read_text().splitlines():
            record = {name: value for name, value in json.loads(line).items() if name not in CLOCK}
            if record["event"] != "exit":
                records.append(((record["event"], record["epoch"], record.get("batch")), record))
    return by_place(records, output)


def streams(folder):
    """Rank -> place -> what was trained on there, as `recorder` wrote it, of all attempts."""
    found = {}
    for file in sorted(folder.glob("stream-*")):
        # A line that a limit on the length of files has cut off has no end.
        lines = [json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
        found.setdefault(int(file.name.split("-")[1]), []).extend((tuple(line["place"]), line) for line in lines)
    return {rank: by_place(records, f"rank {rank}") for rank, records in sorted(found.items())}


def assert_every_sample_once(streams, epochs, num_samples):
    """In each epoch, over all ranks."""
    for epoch in range(1, epochs + 1):
        lines = [line for stream in streams.values() for place, line in stream.items() if place[0] == epoch]
        ids = sorted(index for line in lines for index in line["ids"])
        assert ids == list(range(num_samples)), f"epoch {epoch}"


def assert_same_files(parts, whole, num_same=None):
    """The checkpoints and the best weights, to the bit, and nothing half-done beside them.

    Args:
        parts: the output directory of the training that was killed.
        whole: that of the other one.
        num_same: of the checkpoints, so many newest ones are the same; None for all that the other one has.
    """
    names = [path.name for path in checkpoints_in(whole)][:num_same]
    # Killed before it had removed those that are not kept, it has one or two more.
    there = [path.name for path in checkpoints_in(parts)]
    assert there[0] == names[0] and set(names) <= set(there), there
    assert num_same is not None or len(there) <= len(names) + 2, there
    for name in [names[0], *(["best_model"] if (whole / "best_model").exists() else [])]:
        found, expected = toys.digests(parts / name), toys.digests(whole / name)
        other = [file for file in expected if found.get(file) != expected[file]]
        assert not other, f"{name}: {other}"
    half_done = [name for name in os.listdir(parts) if name.startswith(".") and name != ".lock"]
    assert not half_done, half_done


def assert_nothing_half_done_has_a_name(output):
    """Whatever is called a checkpoint, or the best weights, is whole."""
    for path in [*checkpoints_in(output), output / "best_model"]:
        if path.exists():
            verify(path)
