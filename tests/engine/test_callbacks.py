# SPDX-License-Identifier: Apache-2.0
"""What is written while a model trains, and when."""

import json
import logging
import math
from types import SimpleNamespace

import paddle
import pytest

from ppcls.engine.callbacks import Evaluation, JsonLines, SaveCheckpoint, VisualDLScalars
from ppcls.engine.progress import Progress
from ppcls.engine.trainer import StepOutput, TrainState
from ppcls.metric import CombinedMetric, TopkAcc


@pytest.fixture(autouse=True)
def info(caplog):
    caplog.set_level(logging.INFO, "ppcls")


def output(loss, size, right=0):
    """A batch of two classes of which the first ``right`` labels are hit."""
    value = paddle.to_tensor(loss)
    logits = paddle.to_tensor([[1.0, 0.0]] * size)
    labels = paddle.to_tensor([0] * right + [1] * (size - right))
    return StepOutput(value, {"CELoss": value, "loss": value}, logits, labels, size)


def state(batch, epoch=1, **others):
    return TrainState(epoch, batch, batch, learning_rate=0.5, reader_seconds=0.1, batch_seconds=0.4, **others)


def run_epoch(progress, outputs, epoch=1):
    for batch, each in enumerate(outputs, start=1):
        progress.on_step_end(state(batch, epoch), each)
    progress.on_epoch_end(state(len(outputs), epoch))


def test_a_line_has_place_rate_running_means_costs_speed_and_time_left(caplog):
    progress = Progress(3, 4, 2, CombinedMetric([TopkAcc([1])]))
    progress.on_train_start(TrainState())
    progress.on_step_end(state(1), output(1.0, 8, right=8))
    assert caplog.messages == []
    progress.on_step_end(state(2), output(4.0, 4, right=1))
    # mean loss (8 * 1 + 4 * 4) / 12, 9 of 12 right, 12 images in 0.8 s, 10 batches left at 0.4 s
    assert caplog.messages == [
        "[Train][Epoch 1/3][Iter: 2/4] step: 2, lr: 0.5, CELoss: 2.00000, loss: 2.00000, top1: 0.75000, "
        "batch_cost: 0.40000s, reader_cost: 0.10000s, ips: 15.0 images/s, eta: 0:00:04"
    ]


def test_the_last_batch_of_an_epoch_has_a_line_whatever_the_interval(caplog):
    progress = Progress(1, 3, 2)
    progress.on_train_start(TrainState())
    run_epoch(progress, [output(1.0, 2)] * 3)
    assert [message.split("]")[2] for message in caplog.messages[:2]] == ["[Iter: 2/3", "[Iter: 3/3"]
    assert "eta: 0:00:00" in caplog.messages[1]
    assert "[Epoch 1/1][Avg] CELoss: 1.00000" in caplog.messages[2]


def test_means_of_an_epoch_are_weighted_by_samples_and_begin_anew():
    records = []
    progress = Progress(2, 2, 10, CombinedMetric([TopkAcc([1])]), records=(records.append,))
    progress.on_train_start(TrainState())
    run_epoch(progress, [output(1.0, 6, right=6), output(5.0, 2, right=0)])
    run_epoch(progress, [output(3.0, 2, right=1), output(3.0, 2, right=1)], epoch=2)
    first, second = [record for record in records if record["event"] == "epoch"]
    assert (first["loss"], first["top1"]) == (2.0, 0.75)
    assert (second["loss"], second["top1"]) == (3.0, 0.5)


def test_memory_is_shown_when_asked_for(caplog):
    progress = Progress(1, 1, 1, show_memory=True)
    progress.on_train_start(TrainState())
    progress.on_step_end(state(1), output(1.0, 1))
    assert "memory: " in caplog.text


def test_json_lines_are_one_object_each_and_appended(tmp_path):
    JsonLines(tmp_path / "train.jsonl")({"event": "train", "loss": 0.5})
    JsonLines(tmp_path / "train.jsonl")({"event": "eval", "name": "é"})
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [{key: line[key] for key in line if key != "time"} for line in lines] == [
        {"event": "train", "loss": 0.5},
        {"event": "eval", "name": "é"},
    ]
    assert all(line["time"] > 1.7e9 for line in lines)


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


def test_a_checkpoint_is_saved_after_every_epoch():
    saved = []
    checkpointer = SimpleNamespace(save=lambda state: saved.append(state.epoch))
    SaveCheckpoint(checkpointer, Progress(3, 2, 1)).on_epoch_end(TrainState(epoch=3))
    assert saved == [3]


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


def test_the_speed_of_an_epoch_is_that_of_its_batches():
    records = []
    progress = Progress(1, 2, 1, records=(records.append,))
    progress.on_train_start(TrainState())
    run_epoch(progress, [output(1.0, 8), output(1.0, 4)])
    assert records[-1]["ips"] == pytest.approx(12 / 0.8)
