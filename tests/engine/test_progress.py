# SPDX-License-Identifier: Apache-2.0
"""Log lines and means of an epoch, also of one that was continued in its middle."""

import json
import logging

import paddle
import pytest

from ppcls.engine.progress import Progress, reading_verdict
from ppcls.engine.trainer import StepOutput, TrainState
from ppcls.metric import CombinedMetric, TopkAcc
from ppcls.utils import dist


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


def test_batches_that_do_not_count_leave_no_gap_in_the_line(caplog):
    progress = Progress(1, 1, 1, CombinedMetric([TopkAcc([1])]))
    progress.on_train_start(TrainState())
    run_epoch(progress, [None])
    assert "lr: 0.5, batch_cost: 0.40000s" in caplog.messages[0]
    assert caplog.messages[1].startswith("[Train][Epoch 1/1][Avg] no batch counts, ips: 0.0")


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


def test_the_speed_of_an_epoch_is_that_of_its_batches():
    records = []
    progress = Progress(1, 2, 1, records=(records.append,))
    progress.on_train_start(TrainState())
    run_epoch(progress, [output(1.0, 8), output(1.0, 4)])
    assert records[-1]["ips"] == pytest.approx(12 / 0.8)


def halves(records=()):
    """A progress over four batches that is left after two, and what it has summed up by then."""
    progress = Progress(1, 4, 1, CombinedMetric([TopkAcc([1])]), records=records)
    progress.on_train_start(TrainState())
    progress.on_step_end(state(1), output(1.0, 6, right=6))
    progress.on_step_end(state(2), output(5.0, 2, right=1))
    return json.loads(json.dumps(progress.sums()))


def continued(sums, metric):
    """The record of an epoch of which two batches were done before."""
    records = []
    progress = Progress(1, 4, 1, metric and CombinedMetric([metric]), records=(records.append,))
    progress.on_train_start(state(2, sums=sums))
    progress.on_step_end(state(3), output(2.0, 4, right=0))
    progress.on_step_end(state(4), output(2.0, 4, right=2))
    progress.on_epoch_end(state(0))
    return records[-1]


def test_the_means_of_a_continued_epoch_are_of_all_its_batches():
    record = continued([halves()], TopkAcc([1]))
    # (6 * 1 + 2 * 5 + 8 * 2) / 16; 9 of 16 right; 16 images in 4 * 0.4 s
    assert record["loss"] == pytest.approx(2.0)
    assert record["top1"] == pytest.approx(9 / 16)
    assert record["ips"] == pytest.approx(10.0)


def test_what_is_summed_up_does_not_change_by_being_asked_for():
    metric = TopkAcc([1])
    progress = Progress(1, 4, 1, CombinedMetric([metric]))
    progress.on_train_start(TrainState())
    progress.on_step_end(state(1), output(1.0, 6, right=6))
    assert progress.sums() == progress.sums()
    progress.on_step_end(state(2), output(5.0, 2, right=1))
    assert progress.sums()["parts"]["loss"] == 16.0
    assert metric.compute() == {"top1": 7 / 8}


@pytest.mark.parametrize(("rank", "world_size", "taken"), [(0, 2, [0]), (1, 2, [1]), (0, 1, [0, 1]), (2, 4, [])])
def test_each_sum_goes_to_one_process_whatever_their_number(monkeypatch, rank, world_size, taken):
    monkeypatch.setattr(dist, "rank", lambda: rank)
    monkeypatch.setattr(dist, "world_size", lambda: world_size)
    metric = TopkAcc([1])
    progress = Progress(1, 4, 1, CombinedMetric([metric]))
    one = {"names": ["CELoss", "loss", "top1"], "num_samples": 2, "seconds": 1.0, "metric": [[1, 2]]}
    two = {**one, "num_samples": 4, "metric": [[3, 4]], "parts": {"CELoss": 8.0, "loss": 8.0}}
    progress.on_train_start(state(2, sums=[{**one, "parts": {"CELoss": 6.0, "loss": 6.0}}, two]))
    progress.on_step_end(state(3), output(0.0, 1))
    sums = progress.sums()
    assert sums["num_samples"] == 1 + sum((2, 4)[number] for number in taken)
    assert sums["parts"]["loss"] == sum((6.0, 8.0)[number] for number in taken)
    assert metric.correct == sum((1, 3)[number] for number in taken)


def test_sums_of_other_metrics_are_left_out_and_that_is_said(caplog):
    record = continued([halves()], None)
    assert record["loss"] == 2.0
    assert "the means of epoch 1 are over its batches from 3 on" in caplog.text


def test_sums_of_an_epoch_that_has_ended_are_not_taken_up():
    progress = Progress(2, 1, 1)
    progress.on_train_start(state(0, sums=[halves()]))
    progress.on_step_end(state(1, epoch=2), output(2.0, 4))
    assert progress.sums()["num_samples"] == 4


@pytest.mark.parametrize(
    "waited, whole, workers, cores, advice",
    [
        (62.0, 100.0, 2, 8, "62% of the time went into waiting for images (2 workers, 8 cores): raise "
         "DataLoader.Train.loader.num_workers, or pack the data set (tools/pack_dataset.py)"),
        (62.0, 100.0, 8, 8, "62% of the time went into waiting for images (8 workers, 8 cores): "
         "pack the data set (tools/pack_dataset.py)"),
        (2.1, 10.0, 1, 1, "21% of the time went into waiting for images (1 worker, 1 core): "
         "pack the data set (tools/pack_dataset.py)"),
        (50.0, 100.0, 0, 4, "50% of the time went into reading images in the training process: "
         "set DataLoader.Train.loader.num_workers to 4"),
        (50.0, 100.0, 0, 64, "50% of the time went into reading images in the training process: "
         "set DataLoader.Train.loader.num_workers to 8"),
        (50.0, 100.0, 0, 1, "50% of the time went into reading images in the training process: "
         "set DataLoader.Train.loader.num_workers to 1, or pack the data set (tools/pack_dataset.py)"),
        (20.0, 100.0, 2, 8, None),
        (0.9, 1.0, 2, 8, None),  # a second is not worth a line
        (0.0, 0.0, 2, 8, None),
    ],
)  # fmt: skip
def test_the_verdict_on_reading(waited, whole, workers, cores, advice):
    assert reading_verdict(waited, whole, workers, cores) == advice


def test_slow_reading_is_said_once_and_the_first_batch_of_an_epoch_does_not_count(caplog):
    slow = Progress(9, 3, 9, num_workers=0)
    slow.on_train_start(TrainState())
    for epoch, reader_seconds in ((1, [9.0, 0.1, 0.1]), (2, [0.1, 3.0, 3.0]), (3, [0.1, 3.0, 3.0])):
        for batch, seconds in enumerate(reader_seconds, 1):
            slow.on_step_end(TrainState(epoch, batch, reader_seconds=seconds, batch_seconds=10.0), output(1.0, 2))
        slow.on_epoch_end(TrainState(epoch, 3))
    said = [message for message in caplog.messages if "of the time" in message]
    assert len(said) == 1
    assert said[0].startswith("[Train][Epoch 2] 30% of the time went into reading images")
