# SPDX-License-Identifier: Apache-2.0
"""What is written while a model trains, and when."""

import json
import logging
import math
from types import SimpleNamespace

import pytest

from ppcls.engine.callbacks import Evaluation, JsonLines, SaveCheckpoint, VisualDLScalars
from ppcls.engine.progress import Progress
from ppcls.engine.trainer import TrainState


@pytest.fixture(autouse=True)
def info(caplog):
    caplog.set_level(logging.INFO, "ppcls")


def test_json_lines_are_one_object_each_and_appended(tmp_path):
    JsonLines(tmp_path / "train.jsonl")({"event": "train", "loss": 0.5})
    JsonLines(tmp_path / "train.jsonl")({"event": "eval", "name": "é"})
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [{key: line[key] for key in line if key != "time"} for line in lines] == [
        {"event": "train", "loss": 0.5},
        {"event": "eval", "name": "é"},
    ]
    assert all(line["time"] > 1.7e9 for line in lines)


@pytest.mark.parametrize(("before", "kept"), [('{"a": 1}\n{"b', [{"a": 1}]), ('{"b', []), ('{"a": 1}\n', [{"a": 1}])])
def test_a_line_that_a_kill_left_half_written_is_cut_off(tmp_path, before, kept):
    (tmp_path / "train.jsonl").write_text(before)
    JsonLines(tmp_path / "train.jsonl")({"event": "train"})
    *earlier, last = (json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines())
    assert earlier == kept
    assert last["event"] == "train"


def test_json_lines_stay_json_when_a_figure_is_not_finite(tmp_path):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    JsonLines(tmp_path / "train.jsonl")({"event": "eval", "loss": math.nan, "best": math.inf})
    line = json.loads((tmp_path / "train.jsonl").read_text(), parse_constant=refuse)
    assert (line["loss"], line["best"]) == (None, None)


def evaluate_all(values, higher=True, interval=1, start=0, first_epoch=1, best=None, best_epoch=0):
    """Run through the epochs whose figures are given; returns state, epochs evaluated, epochs kept."""
    evaluated, kept = [], []
    now = TrainState(best=best, best_epoch=best_epoch)
    last = first_epoch + len(values) - 1

    def figures():
        evaluated.append(now.epoch)
        return {"figure": values[now.epoch - first_epoch]}

    callback = Evaluation(figures, lambda state: kept.append(state.epoch), "figure", higher, interval, start, last)
    for epoch in range(first_epoch, last + 1):
        now.epoch = epoch
        callback.on_epoch_end(now)
    return now, evaluated, kept


def test_the_best_is_kept_and_of_equal_ones_the_later():
    now, _, kept = evaluate_all([0.5, 0.7, 0.6, 0.7, 0.1])
    assert kept == [1, 2, 4]
    assert (now.best, now.best_epoch, now.metrics) == (0.7, 4, {"figure": 0.1})


def test_lower_can_be_better():
    now, _, kept = evaluate_all([0.5, 0.7, 0.4, 0.4], higher=False)
    assert kept == [1, 3, 4]
    assert now.best == 0.4


def test_a_figure_that_is_not_a_number_is_never_the_best():
    now, _, kept = evaluate_all([math.nan, 0.2, math.nan])
    assert kept == [2]
    assert now.best == 0.2


def test_a_resumed_run_has_to_beat_the_best_of_before():
    now, _, kept = evaluate_all([0.5, 0.9], first_epoch=3, best=0.8, best_epoch=2)
    assert kept == [4]
    assert (now.best, now.best_epoch) == (0.9, 4)


@pytest.mark.parametrize(
    ("interval", "start", "evaluated"),
    [(1, 0, [1, 2, 3, 4, 5]), (2, 0, [2, 4, 5]), (2, 3, [4, 5]), (1, 4, [4, 5]), (9, 0, [5]), (1, 9, [5])],
)
def test_evaluation_is_due_by_interval_from_the_start_epoch_and_at_the_end(interval, start, evaluated):
    assert evaluate_all([0.1] * 5, interval=interval, start=start)[1] == evaluated


def test_without_a_deciding_figure_nothing_is_kept():
    kept = []
    callback = Evaluation(lambda: {"loss": 1.0}, kept.append, None, True, 1, 0, 1)
    now = TrainState(epoch=1)
    callback.on_epoch_end(now)
    assert (kept, now.best, now.metrics) == ([], None, {"loss": 1.0})


def test_counts_of_an_evaluation_have_their_own_lines(caplog):
    figures = {"loss": 1.25, "top1": 37657 / 49920, "top1_correct": 37657, "top5_correct": 46107, "num_samples": 49920}
    Evaluation(lambda: figures, lambda state: None, None, True, 1, 0, 9).on_epoch_end(TrainState(epoch=3))
    assert caplog.messages == [
        "[Eval][Epoch 3][Avg] loss: 1.25000, top1: 0.75435, num_samples: 49920",
        "[Eval][Epoch 3] after all-reduce: top1_correct=37657, tot=49920, acc=75.43%",
        "[Eval][Epoch 3] after all-reduce: top5_correct=46107, tot=49920, acc=92.36%",
    ]


def test_figures_of_an_evaluation_are_recorded():
    records = []
    callback = Evaluation(lambda: {"top1": 0.5}, lambda state: None, "top1", True, 1, 0, 1, (records.append,))
    callback.on_epoch_end(TrainState(epoch=1, step=7))
    assert records == [{"event": "eval", "epoch": 1, "step": 7, "top1": 0.5, "best": 0.5}]


def saved_places(batches_per_epoch, updates, interval, step=0):
    """Where two epochs are saved, as (epoch, batch, step); ``updates`` are the batches that make an update."""
    places = []
    checkpointer = SimpleNamespace(save=lambda now: places.append((now.epoch, now.batch, now.step)))
    callback = SaveCheckpoint(checkpointer, Progress(2, batches_per_epoch, 1), interval)
    now = TrainState(step=step)
    callback.progress.on_train_start(now)
    callback.on_train_start(now)
    for now.epoch in (1, 2):
        for now.batch in range(1, batches_per_epoch + 1):
            now.step += now.batch % updates == 0
            callback.on_step_end(now, None)
        now.batch = 0
        callback.on_epoch_end(now)
    return places


def test_a_checkpoint_is_saved_after_every_epoch():
    assert saved_places(4, 1, None) == [(1, 0, 4), (2, 0, 8)]


def test_checkpoints_in_the_middle_count_updates_over_epochs():
    assert saved_places(4, 1, 3) == [(1, 3, 3), (1, 0, 4), (2, 2, 6), (2, 0, 8)]


def test_the_end_of_an_epoch_is_saved_once():
    assert saved_places(4, 1, 2) == [(1, 2, 2), (1, 0, 4), (2, 2, 6), (2, 0, 8)]


def test_checkpoints_in_the_middle_are_at_the_end_of_an_update_only():
    assert saved_places(6, 2, 1) == [(1, 2, 1), (1, 4, 2), (1, 0, 3), (2, 2, 4), (2, 4, 5), (2, 0, 6)]


def test_nothing_is_saved_before_the_first_update_of_a_continued_run():
    assert saved_places(4, 2, 5, step=10) == [(1, 0, 12), (2, 0, 14)]


def test_scalars_can_be_read_by_visualdl(tmp_path):
    visualdl = pytest.importorskip("visualdl")
    scalars = VisualDLScalars(tmp_path)
    for step, loss in ((1, 0.5), (2, 0.25)):
        scalars({"event": "train", "epoch": 1, "step": step, "loss": loss, "lr": 0.1})
    scalars.on_train_end(TrainState())
    (file,) = tmp_path.glob("vdlrecords*")
    reader = visualdl.LogReader(file_path=str(file))
    assert [point.id for point in reader.get_data("scalar", "train/lr")] == [1, 2]
    points = reader.get_data("scalar", "train/loss")
    assert [(point.id, point.value) for point in points] == [(1, 0.5), (2, 0.25)]
