# SPDX-License-Identifier: Apache-2.0
"""A run goes on with another number of processes and the same global batch: the same images, the same losses.

What is promised is for a model without batch norm: its statistics are of the images of one process (without
``Arch.use_sync_bn``), and dropout and mixup draw for each process by itself, so there the number of processes shows.
"""

import signal

import pytest
import toys
from forked import command
from same_run import streams

NUM_SAMPLES, GLOBAL_BATCH, EPOCHS = 40, 8, 3
SETTINGS = [
    "Global.imports=[toy_arch, recorder]",
    "Global.checkpoints=auto",
    f"Global.epochs={EPOCHS}",
    "Global.save_step_interval=1",
    "Arch={name: ToyNet, class_num: 4, dropout: 0, batch_norm: false}",
    "EMA={decay: 0.9}",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    toys.write_yaml(folder, toys.write_data(folder / "data", NUM_SAMPLES))
    return folder


def start(trainings, folder, name, attempt, ranks, update_freq=1, batch=None, **environment):
    """Go on with a run on so many ranks; each attempt has its own folder of records."""
    records = folder / f"{name}_{attempt}"
    records.mkdir()
    batch = batch or GLOBAL_BATCH // ranks // update_freq
    here = [f"Global.output_dir={folder / name}", f"Global.update_freq={update_freq}"]
    here += [f"DataLoader.Train.sampler.batch_size={batch}"]
    words = command(folder / "toy.yaml", SETTINGS + here)
    return trainings.start(words, folder / f"{name}.log", ranks, RECORD_TO=str(records), **environment)


def updates(records, update_freq=1):
    """(Epoch, update) -> ids in their global order and the mean loss, of one attempt; whole updates only."""
    by_rank = streams(records)
    found = {}
    for epoch, batch in sorted(by_rank[0]):
        update = epoch, (batch - 1) // update_freq
        lines = [stream[epoch, batch] for stream in by_rank.values() if (epoch, batch) in stream]
        if len(lines) == len(by_rank):
            found.setdefault(update, []).extend(lines)
    return {
        update: ([index for line in lines for index in line["ids"]], sum(line["loss"] for line in lines) / len(lines))
        for update, lines in found.items()
        if len(lines) == len(by_rank) * update_freq
    }


@pytest.fixture(scope="module")
def whole(trainings, folder):
    """The run that one process does without interruption."""
    training = start(trainings, folder, "whole", 0, 1)
    assert training.wait() == [0], training.log.read_text()
    return updates(folder / "whole_0")


@pytest.mark.promise("F03")
@pytest.mark.parametrize(
    "attempts",
    [[(1, 1), (2, 1), (4, 1), (1, 1)], [(2, 2), (1, 4), (2, 1), (1, 2)], [(4, 2), (2, 4), (1, 1), (4, 1)]],
    ids=["1, 2, 4, 1 ranks", "with accumulation", "4, 2, 1, 4 ranks"],
)
def test_a_run_goes_on_with_another_number_of_ranks(trainings, folder, whole, attempts):
    name = "_".join(f"{ranks}x{update_freq}" for ranks, update_freq in attempts)
    found = {}
    for attempt, (ranks, update_freq) in enumerate(attempts):
        # Killed before the last batch of an epoch's 4th, 3rd and 2nd update.
        place = {0: f"1,{4 * update_freq}", 1: f"2,{3 * update_freq}", 2: f"3,{2 * update_freq}"}.get(attempt, "")
        training = start(trainings, folder, name, attempt, ranks, update_freq, KILL_AT_PLACE=place)
        codes = training.wait()
        assert codes == [-signal.SIGKILL if place else 0] * ranks, training.told(codes)
        for update, (ids, loss) in updates(folder / f"{name}_{attempt}", update_freq).items():
            expected_ids, expected_loss = whole[update]
            assert ids == expected_ids, (update, ranks, update_freq)
            assert loss == pytest.approx(expected_loss, rel=1e-6), (update, ranks, update_freq)
            found[update] = ids
    assert found.keys() == whole.keys()
    for epoch in range(1, EPOCHS + 1):
        ids = [index for place, ids in sorted(found.items()) if place[0] == epoch for index in ids]
        assert sorted(ids) == list(range(NUM_SAMPLES))
    for event in ("epoch", "eval"):
        alone, together = toys.records(folder / "whole", event), toys.records(folder / name, event)
        for figure in ("loss", "top1", "top2"):
            assert [record[figure] for record in together] == pytest.approx(
                [record[figure] for record in alone], rel=1e-6
            )


@pytest.mark.promise("F03")
def test_a_global_batch_that_the_ranks_do_not_divide_is_refused(trainings, folder, whole):
    killed = start(trainings, folder, "three", 0, 1, KILL_AT_PLACE="2,3")
    assert killed.wait() == [-signal.SIGKILL]
    # 3 ranks cannot share 8 images; 3 each are 9.
    log = killed.log.read_text()
    training = start(trainings, folder, "three", 1, 3, batch=3)
    assert training.wait() == [2, 2, 2], training.log.read_text()
    said = training.log.read_text().removeprefix(log)
    assert "Traceback" not in said
    # Each says it; what the log says beside it begins with the time.
    (error,) = {line for line in said.splitlines() if line.startswith(str(folder))}
    assert "batch size x processes" in error
