# SPDX-License-Identifier: Apache-2.0
"""Evaluation: every sample counted once, whatever the batches."""

import numpy as np
import paddle
import pytest

from ppcls.engine.callbacks import log_evaluation
from ppcls.engine.evaluator import classification
from ppcls.metric import CombinedMetric, TopkAcc
from ppcls.utils.errors import DataError


@pytest.fixture
def metric():
    return CombinedMetric([TopkAcc([1, 2])])


def by_hand(model, loader):
    """Mean loss and accuracies, one image at a time in numpy."""
    losses, ranks = [], []
    for images, labels in loader:
        for image, label in zip(images, labels.numpy()):
            logits = model(image.unsqueeze(0)).numpy()[0].astype(np.float64)
            losses.append(np.log(np.exp(logits).sum()) - logits[label])
            ranks.append((logits > logits[label]).sum())
    return np.mean(losses), np.mean(np.array(ranks) < 1), np.mean(np.array(ranks) < 2)


def test_means_are_weighted_by_samples_with_a_short_last_batch(small_net, fixed_loader, cross_entropy, metric):
    model, loader = small_net(norm=True, dropout=0.5), fixed_loader(4, 4, 1)
    model.eval()
    loss, top1, top2 = by_hand(model, loader)
    figures = classification(model, loader, cross_entropy, metric)
    assert figures["num_samples"] == 9
    assert figures["loss"] == pytest.approx(loss, rel=1e-6)
    assert figures["CELoss"] == pytest.approx(loss, rel=1e-6)
    assert (figures["top1"], figures["top2"]) == (pytest.approx(top1), pytest.approx(top2))
    assert (figures["top1_correct"], figures["top2_correct"]) == (round(9 * top1), round(9 * top2))


def test_figures_do_not_depend_on_the_batch_size(small_net, fixed_loader, cross_entropy, metric):
    model = small_net(norm=True)
    each = [classification(model, fixed_loader(*sizes), cross_entropy, metric) for sizes in ([12], [5, 5, 2], [1] * 12)]
    for figures in each[1:]:
        assert figures == pytest.approx(each[0], rel=1e-6)
        assert figures["top1"] == each[0]["top1"]


def test_a_second_evaluation_does_not_remember_the_first(small_net, fixed_loader, cross_entropy, metric):
    model, loader = small_net(), fixed_loader(4, 2)
    assert classification(model, loader, cross_entropy, metric) == classification(model, loader, cross_entropy, metric)


@pytest.mark.parametrize("is_training", [True, False])
def test_the_mode_is_restored_and_nothing_in_the_model_changes(small_net, fixed_loader, cross_entropy, is_training):
    model = small_net(norm=True)
    model.train() if is_training else model.eval()
    before = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    classification(model, fixed_loader(4), cross_entropy, None)
    assert model.training is is_training
    assert all(np.array_equal(tensor.numpy(), before[name]) for name, tensor in model.state_dict().items())


def test_the_mode_is_restored_when_the_data_fails(small_net, cross_entropy):
    def failing():
        yield paddle.zeros([1, 3, 4, 4]), paddle.zeros([1], "int64")
        raise RuntimeError("unreadable")

    model = small_net(norm=True)
    model.train()
    with pytest.raises(RuntimeError, match="unreadable"):
        classification(model, failing(), cross_entropy, None)
    assert model.training


def test_without_a_loss_there_are_only_metrics(small_net, fixed_loader, metric):
    names = ["top1", "top2", "top1_correct", "top2_correct", "num_samples"]
    assert list(classification(small_net(), fixed_loader(4), None, metric)) == names


def test_evaluation_runs_in_evaluation_mode_without_gradients(small_net, fixed_loader):
    class Loss(paddle.nn.Layer):
        def forward(self, output, labels):
            assert output.stop_gradient
            assert not model.training
            return {"loss": output.mean()}

    model = small_net(dropout=0.5)
    model.train()
    classification(model, fixed_loader(4), Loss(), None)


def test_samples_that_were_left_out_are_counted_apart(small_net, fixed_loader, metric, caplog):
    loader = fixed_loader(4, 2)
    loader.num_left_out = 3
    figures = classification(small_net(), loader, None, metric)
    assert (figures["num_samples"], figures["num_left_out"]) == (6, 3)
    log_evaluation("[Eval]", figures)
    assert "[Eval] 6 of 9 images, 3 could not be read (bad_samples.jsonl)" in caplog.messages


def test_an_evaluation_of_which_nothing_can_be_read_is_an_error(small_net, fixed_loader):
    loader = fixed_loader()
    loader.num_left_out = 5
    with pytest.raises(DataError, match="none of the 5 images"):
        classification(small_net(), loader, None, None)
