# SPDX-License-Identifier: Apache-2.0
"""Small trainings from YAML: they learn, they repeat, and they continue to the bit."""

import pytest
import toys

from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.utils.logger import stop_logging


def losses(output):
    return [(record["epoch"], record["batch"], record["loss"]) for record in toys.records(output, "train")]


def test_forty_images_are_learned_by_heart(train):
    output = train("run", "Global.epochs=12", "Arch.dropout=0.0", "DataLoader.Train.sampler.shuffle=true")
    epochs = toys.records(output, "epoch")
    assert epochs[-1]["top1"] == 1.0
    assert epochs[-1]["loss"] < epochs[0]["loss"] / 1.5
    assert toys.records(output, "eval")[-1]["top1"] == 1.0


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(train):
    first, again, other = train("first"), train("again"), train("other", "Global.seed=8")
    assert losses(first) == losses(again)
    assert toys.digests(first / "epoch_2") == toys.digests(again / "epoch_2")
    assert not {loss for *_, loss in losses(first)} & {loss for *_, loss in losses(other)}


def test_workers_do_not_change_anything(train):
    here, there = train("here"), train("there", "DataLoader.Train.loader.num_workers=2")
    assert toys.digests(here / "epoch_2") == toys.digests(there / "epoch_2")


@pytest.mark.parametrize("optimizer", ["Optimizer.momentum=0.9", "Optimizer={name: AdamW, lr: 0.01}"])
@pytest.mark.parametrize("workers", [(0, 0), (2, 0)])
def test_two_epochs_and_two_more_equal_four_to_the_last_bit(train, workers, optimizer):
    settings = [optimizer, "EMA={decay: 0.9}", "Arch.dropout=0.3", "Global.update_freq=2"]
    first, second = (f"DataLoader.Train.loader.num_workers={number}" for number in workers)
    whole = train("whole", "Global.epochs=4", *settings, first)
    train("parts", "Global.epochs=2", *settings, first)
    parts = train("parts", "Global.epochs=4", "Global.checkpoints=auto", *settings, second)
    for name in ("epoch_4", "best_model"):
        assert toys.digests(parts / name) == toys.digests(whole / name)
    assert losses(parts) == losses(whole)
    evaluations = [[record["loss"] for record in toys.records(run, "eval")] for run in (parts, whole)]
    assert evaluations[0] == evaluations[1]


def test_continuing_what_is_done_changes_nothing(train):
    output = train("run")
    before = toys.digests(output / "epoch_2")
    assert toys.digests(train("run", "Global.checkpoints=auto") / "epoch_2") == before
    assert len(toys.records(output, "epoch")) == 2


def test_the_best_figure_survives_a_resume(train):
    worse = "Optimizer.lr=0.0"  # what comes after the resume is no better
    output = train("run", "Global.epochs=2", "Optimizer.lr=0.05")
    best = toys.records(output, "eval")[-1]["best"]
    output = train("run", "Global.epochs=3", "Global.checkpoints=auto", worse)
    assert toys.records(output, "eval")[-1]["best"] >= best


def test_iter_per_epoch_shortens_the_epoch(train):
    output = train("run", "Global.iter_per_epoch=3", "Global.print_batch_step=1")
    places = [(record["epoch"], record["batch"], record["step"]) for record in toys.records(output, "train")]
    assert places == [(1, 1, 1), (1, 2, 2), (1, 3, 3), (2, 1, 4), (2, 2, 5), (2, 3, 6)]


def test_update_freq_counts_updates_and_leaves_the_rest_of_the_epoch_out(train):
    # 40 images in batches of 8 are 5 batches: two updates of two, and one batch left out.
    output = train("run", "Global.update_freq=2", "Global.print_batch_step=1")
    places = [(record["epoch"], record["batch"], record["step"]) for record in toys.records(output, "train")]
    assert places == [(1, 1, 0), (1, 2, 1), (1, 3, 1), (1, 4, 2), (2, 1, 2), (2, 2, 3), (2, 3, 3), (2, 4, 4)]


def test_intervals_of_evaluation_and_saving_and_the_last_epoch(train):
    settings = ["Global.epochs=7", "Global.eval_interval=3", "Global.start_eval_epoch=4", "Global.save_interval=3"]
    output = train("run", *settings)
    assert [record["epoch"] for record in toys.records(output, "eval")] == [6, 7]
    saved = {path.name for path in output.glob("epoch_*")}
    assert saved == {"epoch_3", "epoch_6", "epoch_7"}


def test_without_evaluation_no_evaluation_data_is_needed(train):
    output = train("run", "Global.eval_during_train=false", "DataLoader.Eval=null", "Metric.Eval=null")
    assert not (output / "best_model").exists()
    assert toys.records(output, "eval") == []


def test_the_written_configuration_trains_the_same_again(train, tmp_path):
    first = train("first")
    config = load_config(first / "config.yaml", [f"Global.output_dir={tmp_path / 'again'}"])
    Engine(config).train()
    assert toys.digests(tmp_path / "again" / "epoch_2") == toys.digests(first / "epoch_2")
    stop_logging()


def test_a_run_that_cannot_start_leaves_the_configuration_of_the_one_before(train, tmp_path):
    output = train("run")
    before = (output / "config.yaml").read_text()
    with pytest.raises(Exception, match="label 3 is outside"):
        train("run", "Arch.class_num=3")
    assert (output / "config.yaml").read_text() == before


def test_the_data_is_read_before_the_first_epoch_also_that_of_the_evaluation(train, tmp_path):
    with pytest.raises(Exception, match="/nowhere/.*listed in .*val.txt:1"):
        train("run", "DataLoader.Eval.dataset.image_root=/nowhere")
    assert not (tmp_path / "run" / "train.jsonl").exists()
