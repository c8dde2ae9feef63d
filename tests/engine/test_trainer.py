# SPDX-License-Identifier: Apache-2.0
"""The loop with small nets and fixed batches."""

import numpy as np
import paddle
import pytest

from ppcls.engine.callbacks import Callback
from ppcls.engine.ema import ModelEMA
from ppcls.engine.precision import Precision
from ppcls.engine.trainer import ClassificationStep, Trainer, TrainState
from ppcls.optimizer.schedule import Piecewise
from ppcls.utils.errors import NumericsError


class Diary(Callback):
    """Writes down what happens, and does something at a given batch."""

    def __init__(self, at=None, act=None):
        self.events = []
        self.at = at
        self.act = act

    def on_train_start(self, state):
        self.events.append("start")

    def on_step_end(self, state, output):
        self.events.append((state.epoch, state.batch, state.step))
        if self.at == (state.epoch, state.batch):
            self.act(state)

    def on_epoch_end(self, state):
        self.events.append(f"epoch {state.epoch}")

    def on_train_end(self, state):
        self.events.append("end")


class Rates(Callback):
    """Writes down the learning rate of each batch."""

    def __init__(self):
        self.rates = []

    def on_step_end(self, state, output):
        self.rates.append(state.learning_rate)


def weights(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def schedule(by_epoch=False, steps=100):
    return Piecewise(10, steps, [1, 2], [0.1, 0.01, 0.001], by_epoch=by_epoch)


def linear_net():
    """A net that passes on what is not finite; ReLU on a CPU makes 0 of it."""
    return paddle.nn.Sequential(paddle.nn.Flatten(), paddle.nn.Linear(48, 3))


@pytest.fixture
def trainer(cross_entropy):
    def make(model, loader, epochs=1, rate=None, **settings):
        rate = rate or schedule()
        optimizer = paddle.optimizer.Momentum(rate, 0.9, model.parameters())
        return Trainer(ClassificationStep(model, cross_entropy), loader, optimizer, rate, epochs, **settings)

    return make


def test_events_come_in_order(trainer, small_net, fixed_loader):
    diary, loader = Diary(), fixed_loader(4, 4)
    state = trainer(small_net(), loader, epochs=2, callbacks=[diary]).fit(TrainState())
    epochs = [(1, 1, 1), (1, 2, 2), "epoch 1", (2, 1, 3), (2, 2, 4), "epoch 2"]
    assert diary.events == ["start", *epochs, "end"]
    assert loader.epochs == [1, 2]
    assert (state.epoch, state.step) == (2, 4)


def test_callbacks_run_in_list_order(trainer, small_net, fixed_loader):
    order = []

    class Named(Callback):
        def __init__(self, name):
            self.name = name

        def on_epoch_end(self, state):
            order.append(self.name)

    trainer(small_net(), fixed_loader(2), callbacks=[Named("first"), Named("second")]).fit(TrainState())
    assert order == ["first", "second"]


def test_a_continued_training_begins_with_the_next_epoch(trainer, small_net, fixed_loader):
    diary = Diary()
    trainer(small_net(), fixed_loader(4), epochs=3, callbacks=[diary]).fit(TrainState(epoch=2, step=20))
    assert diary.events == ["start", (3, 1, 21), "epoch 3", "end"]


def test_the_end_is_announced_also_when_a_step_raises(trainer, small_net, fixed_loader):
    def fail(state):
        raise RuntimeError("broken")

    diary = Diary(at=(1, 2), act=fail)
    with pytest.raises(RuntimeError, match="broken"):
        trainer(small_net(), fixed_loader(2, 2, 2), callbacks=[diary]).fit(TrainState())
    assert diary.events == ["start", (1, 1, 1), (1, 2, 2), "end"]


def test_stop_in_the_middle_ends_after_the_batch_and_the_epoch_does_not_count_as_done(trainer, small_net, fixed_loader):
    diary = Diary(at=(2, 1), act=lambda state: setattr(state, "stop", True))
    trainer(small_net(), fixed_loader(2, 2), epochs=5, callbacks=[diary]).fit(TrainState())
    assert diary.events == ["start", (1, 1, 1), (1, 2, 2), "epoch 1", (2, 1, 3), "end"]


def test_stop_at_the_last_batch_of_an_epoch_ends_after_the_epoch(trainer, small_net, fixed_loader):
    diary, rate = Diary(at=(1, 2), act=lambda state: setattr(state, "stop", True)), schedule(by_epoch=True)
    trainer(small_net(), fixed_loader(2, 2), epochs=5, rate=rate, callbacks=[diary]).fit(TrainState())
    assert diary.events == ["start", (1, 1, 1), (1, 2, 2), "epoch 1", "end"]
    assert rate.last_epoch == 1


def test_accumulating_two_batches_of_8_equals_one_of_16(trainer, small_net, fixed_loader):
    halves, whole = small_net(), small_net()
    state = trainer(halves, fixed_loader(8, 8, 8, 8), epochs=3, accumulate=2).fit(TrainState())
    trainer(whole, fixed_loader(16, 16), epochs=3).fit(TrainState())
    assert state.step == 6
    for name, value in weights(whole).items():
        np.testing.assert_allclose(weights(halves)[name], value, rtol=0, atol=1e-6)


def test_schedule_steps_once_for_each_update(trainer, small_net, fixed_loader):
    rate, rates = schedule(steps=2), Rates()
    trainer(small_net(), fixed_loader(*[2] * 4), 2, rate, accumulate=2, callbacks=[rates]).fit(TrainState())
    assert rate.last_epoch == 4
    assert rates.rates == [0.1] * 4 + [0.01] * 4


def test_batches_that_make_no_whole_update_are_left_out(trainer, small_net, fixed_loader):
    diary = Diary()
    trainer(small_net(), fixed_loader(*[2] * 5), accumulate=2, callbacks=[diary]).fit(TrainState())
    assert diary.events[1:-2] == [(1, 1, 0), (1, 2, 1), (1, 3, 1), (1, 4, 2)]


def test_schedule_by_epoch_steps_once_for_each_epoch(trainer, small_net, fixed_loader):
    rate, rates = schedule(by_epoch=True), Rates()
    trainer(small_net(), fixed_loader(2, 2, 2), 3, rate, callbacks=[rates]).fit(TrainState())
    assert rate.last_epoch == 3
    assert rates.rates == [0.1] * 3 + [0.01] * 3 + [0.001] * 3


def test_momentum_follows_its_formula(trainer, small_net, fixed_loader):
    model, loader = small_net(), fixed_loader(4, 4)
    weight, bias = model[-1].weight, model[-1].bias
    expected, velocity = bias.numpy().copy(), np.zeros(3)
    biases = []

    class Watch(Callback):
        def on_step_end(self, state, output):
            biases.append((bias.numpy().copy(), output.logits.numpy(), output.labels.numpy()))

    trainer(model, loader, callbacks=[Watch()]).fit(TrainState())
    assert weight.stop_gradient is False
    for after, logits, labels in biases:
        # d(mean cross entropy) / d(bias) = mean(softmax - one hot)
        exp = np.exp(logits - logits.max(1, keepdims=True))
        gradient = (exp / exp.sum(1, keepdims=True) - np.eye(3)[labels]).mean(0)
        velocity = 0.9 * velocity + gradient
        expected = expected - 0.1 * velocity
        np.testing.assert_allclose(after, expected, atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_raises_with_its_place_and_leaves_the_weights(trainer, fixed_loader, value):
    model, loader = linear_net(), fixed_loader(2, 2, 2)
    loader.batches[1] = (paddle.full([2, 3, 4, 4], value), loader.batches[1][1])
    diary = Diary()
    running = trainer(model, loader, callbacks=[diary])
    kept = {}
    diary.at, diary.act = (1, 1), lambda state: kept.update(weights(model))
    with pytest.raises(NumericsError, match=r"epoch 1, batch 2: the loss is (nan|inf) at learning rate 0\.1"):
        running.fit(TrainState())
    assert diary.events == ["start", (1, 1, 1), "end"]
    assert all(np.array_equal(value, kept[name]) for name, value in weights(model).items())


def test_not_finite_in_the_middle_of_an_accumulation_leaves_the_weights(trainer, fixed_loader):
    model, loader = linear_net(), fixed_loader(2, 2)
    loader.batches[0] = (paddle.full([2, 3, 4, 4], float("nan")), loader.batches[0][1])
    before = weights(model)
    with pytest.raises(NumericsError, match="batch 1"):
        trainer(model, loader, accumulate=2).fit(TrainState())
    assert all(np.array_equal(value, before[name]) for name, value in weights(model).items())


def test_the_average_moves_with_updates_only(trainer, small_net, fixed_loader):
    model = small_net()
    ema = ModelEMA(model, 0.5)
    expected = {name: [value.astype(np.float64)] for name, value in weights(model).items()}
    averages = []

    class Watch(Callback):
        def on_step_end(self, state, output):
            averages.append(weights(ema.model)["5.bias"])
            if state.batch % 2 == 0:
                for name, value in weights(model).items():
                    expected[name].append(0.5 * expected[name][-1] + 0.5 * value)

    trainer(model, fixed_loader(*[2] * 4), accumulate=2, ema=ema, callbacks=[Watch()]).fit(TrainState())
    history = [values for name, values in expected.items() if name == "5.bias"][0]
    for average, updates in zip(averages, [0, 1, 1, 2]):
        np.testing.assert_allclose(average, history[updates], atol=1e-6)


def test_dropout_is_a_function_of_seed_epoch_and_batch(trainer, small_net, fixed_loader, cross_entropy):
    def losses(seed, start=0, noise=0):
        paddle.seed(noise)
        seen = {}

        class Watch(Callback):
            def on_step_end(self, state, output):
                seen[state.epoch, state.batch] = float(output.loss)

        model, loader = small_net(dropout=0.5), fixed_loader(8, 8)
        loader.batches[1] = loader.batches[0]
        rate = schedule()
        optimizer = paddle.optimizer.SGD(0.0, model.parameters())  # the weights stay: what differs is dropout
        step = ClassificationStep(model, cross_entropy)
        Trainer(step, loader, optimizer, rate, 3, callbacks=[Watch()], seed=seed).fit(TrainState(epoch=start))
        return seen

    whole = losses(seed=1)
    assert len(set(whole.values())) == 6
    assert losses(seed=1, noise=99) == whole
    assert losses(seed=1, start=2, noise=5) == {place: loss for place, loss in whole.items() if place[0] == 3}
    assert not set(losses(seed=2).values()) & set(whole.values())


@pytest.mark.parametrize("level", ["O1", "O2"])
def test_bfloat16_trains_close_to_float32(trainer, small_net, fixed_loader, level):
    if paddle.get_device() == "cpu":
        pytest.skip("Paddle has mixed precision on accelerators only")

    def final_loss(precision, model):
        class Watch(Callback):
            def on_step_end(self, state, output):
                self.loss = float(output.loss)

        watch = Watch()
        running = trainer(model, fixed_loader(8, 8), 4, precision=precision, callbacks=[watch])
        running.precision.prepare(model, running.optimizer)
        running.fit(TrainState())
        return watch.loss

    model = small_net(norm=True)
    small = final_loss(Precision(level, "bfloat16"), model)
    assert abs(small - final_loss(None, small_net(norm=True))) < 0.1
    is_small = model[0].weight.dtype == paddle.bfloat16
    assert is_small == (level == "O2")


def test_training_mode_is_back_in_every_epoch(trainer, small_net, fixed_loader):
    model = small_net(dropout=0.5)
    modes = []

    class Evaluates(Callback):
        def on_step_end(self, state, output):
            modes.append(model.training)

        def on_epoch_end(self, state):
            model.eval()

    trainer(model, fixed_loader(2), epochs=2, callbacks=[Evaluates()]).fit(TrainState())
    assert modes == [True, True]
