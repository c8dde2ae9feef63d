# SPDX-License-Identifier: Apache-2.0
"""Batches in pieces: the gradients of the whole, whenever memory runs out."""

import json
import logging

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.autograd import PyLayer

from ppcls.engine.callbacks import Callback
from ppcls.engine.gradients import Gradients
from ppcls.engine.loss_scale import LossScaler
from ppcls.engine.pieces import Pieces, is_out_of_memory
from ppcls.engine.precision import Precision
from ppcls.engine.statistics import Statistics
from ppcls.engine.trainer import ClassificationStep, Trainer, TrainState
from ppcls.optimizer.schedule import Piecewise
from ppcls.utils.errors import ConfigError

TOLERANCE = 1e-6
TOO_MUCH = [2**45]
"""A shape that no machine has memory for, so that the error is Paddle's own."""


class Back(PyLayer):
    @staticmethod
    def forward(ctx, x, room):
        ctx.room = room
        return x * 1.0

    @staticmethod
    def backward(ctx, gradient):
        if len(gradient) > ctx.room:
            paddle.empty(TOO_MUCH)
        return gradient


class Small(nn.Layer):
    """Passes so many images on and no more, on the way there or on the way back."""

    def __init__(self, room, where="forward"):
        super().__init__()
        self.room = room
        self.where = where
        self.seen = []

    def forward(self, images):
        self.seen.append(len(images))
        if self.where == "forward" and len(images) > self.room:
            paddle.empty(TOO_MUCH)
        return Back.apply(images, self.room) if self.where == "backward" else images


class Outputs(Callback):
    def __init__(self):
        self.seen = []

    def on_step_end(self, state, output):
        parts = {name: float(value) for name, value in output.parts.items()}
        self.seen.append((parts, float(output.loss), output.logits.numpy(), output.labels.numpy(), output.num_samples))


def net(small=None, norm=False, dropout=0.0):
    paddle.seed(3)
    # Behind layers with weights: a failure there leaves half of the work done.
    return nn.Sequential(
        *(nn.Conv2D(3, 4, 3, padding=1), nn.BatchNorm2D(4) if norm else nn.Identity(), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(64, 8), small or nn.Identity(), nn.Dropout(dropout), nn.Linear(8, 3)),
    )


@pytest.fixture
def fit(cross_entropy):
    """Train a net; gives its state as arrays, what the batches gave, and the state of the training."""

    def run(model, loader, pieces=None, accumulate=1, scaler=None, state=None, until=None):
        rate = Piecewise(10, 100, [1, 2], [0.1, 0.01, 0.001])
        optimizer = paddle.optimizer.Momentum(rate, 0.9, model.parameters())
        outputs = Outputs()
        trainer = Trainer(
            ClassificationStep(model, cross_entropy),
            *(loader, optimizer, rate, 2, accumulate, None, Precision(scaler=scaler), None, [outputs], 5),
            pieces=pieces,
        )
        state = trainer.fit(state or TrainState())
        return {name: tensor.numpy() for name, tensor in model.state_dict().items()}, outputs.seen, state

    return run


def assert_close(one, other, tolerance=TOLERANCE):
    for name, value in other.items():
        np.testing.assert_allclose(one[name], value, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.promise("F22")
@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize(("room", "pieces_of"), [(8, 7), (7, 7), (5, 3), (3, 3), (2, 1), (1, 1)])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_net_without_batch_norm_learns_the_same(fit, fixed_loader, where, room, pieces_of, accumulate):
    whole, expected, _ = fit(net(), fixed_loader(7, 7, 7, 7), accumulate=accumulate)
    small = Small(room, where)
    pieces, seen, state = fit(net(small), fixed_loader(7, 7, 7, 7), accumulate=accumulate)
    assert_close(pieces, whole)
    assert max(small.seen[-7:]) == pieces_of
    assert state.step == 8 // accumulate
    for (parts, loss, logits, labels, number), (*figures, expected_logits, expected_labels, expected_number) in zip(
        seen, expected
    ):
        assert_close(parts, figures[0])
        assert loss == pytest.approx(figures[1], rel=TOLERANCE)
        np.testing.assert_allclose(logits, expected_logits, atol=1e-5)
        assert (labels.tolist(), number) == (expected_labels.tolist(), expected_number)


@pytest.mark.promise("F22")
def test_memory_that_runs_out_in_the_middle_keeps_what_was_summed_up_before(fit, fixed_loader):
    class Later(Small):
        def forward(self, images):
            self.room = 8 if len(self.seen) < 3 else 3  # from the fourth batch on, the last but one of an update
            return super().forward(images)

    whole, *_ = fit(net(), fixed_loader(*[8] * 6), accumulate=3)
    small = Later(8, "backward")
    pieces, *_ = fit(net(small), fixed_loader(*[8] * 6), accumulate=3)
    assert_close(pieces, whole)
    assert small.seen[:8] == [8, 8, 8, 8, 4, 2, 2, 2]


@pytest.mark.promise("F22")
def test_a_loss_scale_goes_together_with_pieces(fit, fixed_loader):
    whole, *_ = fit(net(), fixed_loader(8, 8), scaler=LossScaler(1024.0))
    pieces, *_ = fit(net(Small(3)), fixed_loader(8, 8), scaler=LossScaler(1024.0))
    assert_close(pieces, whole)


@pytest.mark.promise("F22")
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_what_failed_leaves_no_trace_in_statistics_dropout_and_gradients(fit, fixed_loader, where):
    # Asked for at the start, the same pieces have had no failure before them.
    asked, *_ = fit(net(norm=True, dropout=0.5), fixed_loader(8, 8, 8), Pieces(4))
    found, *_ = fit(net(Small(4, where), norm=True, dropout=0.5), fixed_loader(8, 8, 8))
    assert all(np.array_equal(found[name], value) for name, value in asked.items())


def test_it_is_said_once_and_batch_norm_is_warned_about(fit, fixed_loader, caplog):
    caplog.set_level(logging.WARNING, "ppcls")
    fit(net(Small(3), norm=True), fixed_loader(8, 8, 8))
    first, norm, second = caplog.messages
    assert first.startswith("out of memory with 8 images at once ((ResourceExhausted) Fail to alloc memory of ")
    assert first.endswith("from now on 4 at once, and 2 such pieces make the gradients of a batch of 8")
    assert norm.startswith("batch norm takes its mean and variance from the images of a piece")
    assert second.endswith("from now on 2 at once, and 4 such pieces make the gradients of a batch of 8")
    caplog.clear()
    fit(net(Small(3)), fixed_loader(8))
    assert not [message for message in caplog.messages if message.startswith("batch norm")]


def test_a_run_goes_on_with_the_pieces_that_were_found(fit, fixed_loader):
    whole, _, state = fit(net(Small(3), norm=True), fixed_loader(8, 8))
    assert state.pieces == {"asked": None, "size": 2}
    small = Small(3)
    stored = json.loads(json.dumps(state.pieces))
    fit(net(small, norm=True), fixed_loader(8, 8), state=TrainState(epoch=1, pieces=stored))
    assert set(small.seen) == {2}


def test_a_size_that_the_file_asks_for_now_counts_more_than_one_found_before(fit, fixed_loader):
    small = Small(8)
    fit(net(small), fixed_loader(8), Pieces(5), state=TrainState(pieces={"asked": None, "size": 2}))
    assert set(small.seen) == {4}


def test_one_image_that_does_not_fit_ends_the_run(fit, fixed_loader):
    with pytest.raises(ConfigError, match=r"out of memory with 1 image at once .*; make the images or the model small"):
        fit(net(Small(0)), fixed_loader(4))


def test_stop_ends_the_run_and_names_the_key(fit, fixed_loader):
    with pytest.raises(
        ConfigError, match="with 8 images at once .*; write Global.micro_batch_size: 4, which keeps"
    ) as e:
        fit(net(Small(4)), fixed_loader(8), Pieces(on_out_of_memory="stop"))
    assert "\n" not in str(e.value)


def test_a_loss_that_compares_images_is_not_computed_in_pieces(fit, fixed_loader):
    with pytest.raises(ConfigError, match="SupConLoss is no mean over images, .*; make DataLoader"):
        fit(net(Small(4)), fixed_loader(8), Pieces(whole_batch_losses=["SupConLoss"]))
    with pytest.raises(ConfigError, match="Global.micro_batch_size: SupConLoss is no mean over images"):
        Pieces(4, whole_batch_losses=["SupConLoss"])


def test_a_sum_is_no_mean(toy_engine):
    with pytest.raises(ConfigError, match="Global.micro_batch_size: CELoss is no mean over images"):
        toy_engine("Global.micro_batch_size=4", "Loss.Train=[CELoss: {reduction: sum}]").train()


def test_an_error_of_another_kind_passes_through(fit, fixed_loader):
    class Broken(nn.Layer):
        def forward(self, images):
            raise RuntimeError("(InvalidArgument) broken")

    with pytest.raises(RuntimeError, match="broken"):
        fit(net(Broken()), fixed_loader(4))


def test_a_net_whose_forward_waits_for_other_processes_is_not_tried_alone(fixed_loader, monkeypatch, cross_entropy):
    monkeypatch.setattr("ppcls.utils.dist.world_size", lambda: 2)
    plain, synced = net(norm=True), nn.SyncBatchNorm.convert_sync_batchnorm(net(norm=True))
    alone = [
        Gradients(ClassificationStep(model, cross_entropy), Precision(), 1, 0, Statistics(model), Pieces()).is_alone
        for model in (plain, synced)
    ]
    assert alone == [True, False]


@pytest.mark.parametrize(
    ("num_images", "size", "expected"),
    [
        (8, None, [(0, 8)]),
        (8, 8, [(0, 8)]),
        (8, 20, [(0, 8)]),
        (8, 4, [(0, 4), (4, 8)]),
        (7, 3, [(0, 2), (2, 4), (4, 7)]),
        (3, 1, [(0, 1), (1, 2), (2, 3)]),
    ],
)
def test_pieces_are_as_large_as_each_other(num_images, size, expected):
    assert Pieces(size).bounds(num_images) == expected


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("(ResourceExhausted) Fail to alloc memory of 8 size"),
        RuntimeError("\n\nResourceExhaustedError: \n\nOut of memory error on GPU 0. Cannot allocate 4 MB"),
        OSError("(External) CUDNN error(4), CUDNN_STATUS_ALLOC_FAILED."),
        OSError("(External) CUDA error(2), out of memory."),
    ],
)
def test_words_that_mean_out_of_memory(error):
    assert is_out_of_memory(error)


def test_pieces_from_the_start_in_a_run(toy_engine, tmp_path):
    toy_engine("Global.micro_batch_size=3", "Global.epochs=1").train()
    state = json.loads((tmp_path / "output" / "epoch_1" / "state.json").read_text())
    assert (state["step"], state["pieces"]) == (5, {})


def test_memory_that_runs_out_while_processes_wait_for_each_other_ends_the_run_and_names_the_key(
    fit, fixed_loader, monkeypatch
):
    class Later(Small):
        def forward(self, images):
            self.room = 8 if len(self.seen) < 3 else 4  # not in the first batch, which each process tries by itself
            return super().forward(images)

    monkeypatch.setattr("ppcls.utils.dist.world_size", lambda: 2)
    monkeypatch.setattr("ppcls.utils.dist.gathered", lambda value: [value, ""])
    monkeypatch.setattr("ppcls.utils.dist.sum_over_ranks", lambda array: array)
    message = "epoch 1, batch 3: process 0 is out of memory with 8 images at once, .*; write Global.micro_batch_size: 4"
    with pytest.raises(ConfigError, match=message):
        fit(net(Later(8)), fixed_loader(8, 8, 8))
