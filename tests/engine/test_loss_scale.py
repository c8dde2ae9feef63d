# SPDX-License-Identifier: Apache-2.0
"""Loss scaling: what overflows moves nothing, what does not overflow is as if there were no scale."""

import json
import logging

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls.engine.callbacks import Callback
from ppcls.engine.ema import ModelEMA
from ppcls.engine.loss_scale import CEILING, MAX_IN_A_ROW, LossScaler
from ppcls.engine.precision import Precision
from ppcls.engine.trainer import ClassificationStep, Trainer, TrainState
from ppcls.optimizer.schedule import Piecewise
from ppcls.utils.errors import ConfigError, NumericsError


class Watch(Callback):
    """Writes down scale, weights and learning rate after each update."""

    def __init__(self, model):
        self.model = model
        self.scales, self.biases, self.rates = [], [], []

    def on_step_end(self, state, output):
        self.scales.append(state.scaling.get("loss_scale"))
        self.biases.append(self.model[-1].bias.numpy().copy())
        self.rates.append(state.learning_rate)


@pytest.fixture
def fit(small_net, cross_entropy):
    """Train the small net on batches; gives the model's weights and what was seen."""

    def run(loader, scaler=None, accumulate=1, clip=None, ema=None, model=None, rate=None):
        model = model or small_net()
        watch = Watch(model)
        rate = rate or Piecewise(10, 100, [1, 2], [0.1, 0.01, 0.001])
        optimizer = paddle.optimizer.Momentum(rate, 0.9, model.parameters(), grad_clip=clip)
        step = ClassificationStep(model, cross_entropy)
        average = ModelEMA(model, ema) if ema else None
        precision = Precision(scaler=scaler)
        running = Trainer(step, loader, optimizer, rate, 1, accumulate, None, precision, average, [watch])
        state = running.fit(TrainState())
        watch.state, watch.schedule, watch.ema = state, rate, average
        return {name: tensor.numpy() for name, tensor in model.state_dict().items()}, watch

    return run


def parameter(values, dtype="float32"):
    """A parameter with the given gradient in its own type."""
    made = paddle.to_tensor(np.ones(len(values), "float32")).astype(dtype).detach()
    made.stop_gradient = False
    (made.astype("float32") * paddle.to_tensor(values, "float32")).sum().backward()
    return made


def eights():
    """A model of one bias whose gradient is 8, and its loss."""

    class Loss(nn.Layer):
        def forward(self, output, labels):
            loss = 8 * output.sum()
            return {"loss": loss}

    class Bias(nn.Layer):
        def __init__(self):
            super().__init__()
            self.bias = self.create_parameter([1], default_initializer=nn.initializer.Constant(0.25))

        def forward(self, images):
            return self.bias

    return nn.Sequential(Bias()), Loss()


@pytest.mark.parametrize("scaler", [LossScaler(1024.0), LossScaler(2.0**16, True, incr_every_n_steps=2)])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("clip", [None, nn.ClipGradByGlobalNorm(0.1), nn.ClipGradByNorm(0.05)])
def test_without_overflow_the_weights_are_those_of_no_scaling_to_the_bit(fit, fixed_loader, scaler, accumulate, clip):
    plain, _ = fit(fixed_loader(*[4] * 8), None, accumulate, clip)
    scaled, watch = fit(fixed_loader(*[4] * 8), scaler, accumulate, clip)
    assert watch.state.scaling["skipped_updates"] == 0
    assert all(np.array_equal(plain[name], scaled[name]) for name in plain)


def test_a_dynamic_scale_halves_until_the_gradient_fits_and_nothing_moves_before(fixed_loader):
    model, loss = eights()
    watch = Watch(model)
    rate = Piecewise(10, 100, [1, 2], [0.5, 0.05, 0.005])
    optimizer = paddle.optimizer.SGD(rate, model.parameters())
    precision = Precision(scaler=LossScaler(2.0**127, True))
    running = Trainer(
        ClassificationStep(model, loss), fixed_loader(*[1] * 5), optimizer, rate, 1, 1, None, precision, None, [watch]
    )
    # output [1] is no batch of logits; the loop only hands it on
    state = running.fit(TrainState())
    # 8 = 2**3: float32 holds 2**3 * 2**124 = 2**127, and not 2**128
    assert watch.scales == [2.0**126, 2.0**125, 2.0**124, 2.0**124, 2.0**124]
    assert [float(bias) for (bias,) in watch.biases] == [0.25, 0.25, 0.25, 0.25 - 4, 0.25 - 8]
    assert state.scaling["skipped_updates"] == 3


def test_each_update_left_out_is_logged_with_its_count(caplog):
    caplog.set_level(logging.WARNING, "ppcls")
    scaler = LossScaler(1024.0, True)
    scaler.adapt(False)
    scaler.adapt(True)
    scaler.adapt(False)
    assert caplog.messages == [
        "[AMP] an update is left out: a gradient is not finite at loss scale 1024; next loss scale 512, "
        "1 left out so far",
        "[AMP] an update is left out: a gradient is not finite at loss scale 512; next loss scale 256, "
        "2 left out so far",
    ]


@pytest.mark.parametrize("floor", [1.0, 96.0])
def test_a_dynamic_scale_never_falls_below_its_floor(floor):
    scaler = LossScaler(1024.0, True, floor)
    scales = []
    for _ in range(1000):
        scaler.adapt(False)
        scales.append(scaler.scale)
    halvings = int(np.ceil(np.log2(1024 / floor)))
    assert scales[: halvings - 1] == [1024 / 2**n for n in range(1, halvings)]
    assert set(scales[halvings - 1 :]) == {floor}
    assert scaler.skipped == 1000


@pytest.mark.promise("F21")
def test_at_its_floor_an_overflow_is_no_matter_of_the_scale_any_more_and_ends_the_run(fit, fixed_loader):
    loader = fixed_loader(*[2] * 6)
    model = nn.Sequential(Steep(), nn.Linear(48, 3))
    before = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    scaler = LossScaler(8.0, True)
    with pytest.raises(NumericsError, match="epoch 1, batch 4: a gradient is not finite .* the gradient of 0.gain"):
        fit(loader, scaler, model=model)
    assert (scaler.scale, scaler.skipped) == (1.0, 3)
    assert all(np.array_equal(tensor.numpy(), before[name]) for name, tensor in model.state_dict().items())


def test_the_count_of_overflows_in_a_row_survives_a_resume():
    scaler = LossScaler(1024.0)
    for _ in range(MAX_IN_A_ROW - 1):
        scaler.adapt(False)
    restored = LossScaler(1024.0)
    restored.load_state_dict(json.loads(json.dumps(scaler.state_dict())))
    with pytest.raises(NumericsError, match="100 updates in a row"):
        restored.adapt(False)


def test_a_fixed_scale_stays_and_the_overflow_is_skipped(fit, fixed_loader):
    loader = fixed_loader(2, 2, 2)
    loader.batches[1] = (loader.batches[1][0] * 1e37, loader.batches[1][1])
    scaler = LossScaler(1024.0)
    model = nn.Sequential(Overflow(), nn.Linear(48, 3))
    _, watch = fit(loader, scaler, model=model)
    assert watch.scales == [1024.0] * 3
    assert scaler.skipped == 1
    assert np.array_equal(watch.biases[0], watch.biases[1])
    assert not np.array_equal(watch.biases[1], watch.biases[2])


class Overflow(nn.Layer):
    """Large images give a finite output, but weights before it would get a gradient that is too large."""

    def __init__(self):
        super().__init__()
        self.gain = self.create_parameter([1], default_initializer=nn.initializer.Constant(1.0))

    def forward(self, images):
        flat = images.flatten(1)
        # tanh bounds the output; its slope at 0 times the image is the gradient of the gain
        return flat.clip(-1, 1) + (self.gain - self.gain.detach()) * flat


class Steep(Overflow):
    """The gradient is too large whatever the images."""

    def forward(self, images):
        flat, zero = images.flatten(1), self.gain - self.gain.detach()
        for _ in range(3):
            zero = zero * 1e20
        return flat + zero * flat


def test_a_fixed_scale_that_always_overflows_ends_the_run_with_advice():
    scaler = LossScaler(1024.0)
    with pytest.raises(NumericsError, match="at loss scale 1024; .*or a lower AMP.scale_loss"):
        for _ in range(MAX_IN_A_ROW):
            scaler.adapt(False)
    assert scaler.scale == 1024.0


def test_a_dynamic_scale_doubles_after_enough_good_updates_up_to_its_ceiling():
    scaler = LossScaler(1.0, True, incr_every_n_steps=3)
    scales = []
    for _ in range(90):
        scaler.adapt(True)
        scales.append(scaler.scale)
    assert scales == [min(2.0 ** (n // 3), CEILING) for n in range(1, 91)]


def test_an_overflow_begins_the_count_of_good_updates_anew():
    scaler = LossScaler(8.0, True, incr_every_n_steps=2)
    for is_finite in (True, False, True, True):
        scaler.adapt(is_finite)
    assert scaler.scale == 8.0  # halved, then doubled by the last two


def test_several_overflows_in_a_row_may_be_asked_for_before_it_halves():
    scaler = LossScaler(8.0, True, decr_every_n_nan_or_inf=2)
    scales = []
    for is_finite in (False, True, False, False):
        scaler.adapt(is_finite)
        scales.append(scaler.scale)
    assert scales == [8.0, 8.0, 8.0, 4.0]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_gradients_of_every_type_are_divided_in_their_own_type(dtype):
    parameters = [parameter([64.0, -2.0], dtype), parameter([0.0], dtype)]
    assert LossScaler(16.0).unscale(parameters)
    assert [each.grad.astype("float32").numpy().tolist() for each in parameters] == [[4.0, -0.125], [0.0]]
    assert all(each.grad.dtype == each.dtype for each in parameters)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_one_gradient_that_is_not_finite_is_found_in_every_type(dtype, value):
    parameters = [parameter([1.0]), parameter([1.0, value, 1.0], dtype), parameter([1.0])]
    assert not LossScaler(16.0).unscale(parameters)


def test_parameters_without_gradient_are_passed_over():
    frozen = paddle.ones([2])
    assert LossScaler(2.0).unscale([frozen])


def test_a_small_loss_is_scaled_in_float32():
    loss = paddle.to_tensor(8.0).astype("float16")
    scaled = LossScaler(2.0**16).scaled(loss)
    assert (scaled.dtype, float(scaled)) == (paddle.float32, 2.0**19)  # float16 ends at 65504


def test_a_scaled_loss_that_overflows_skips_and_a_loss_that_is_not_finite_raises(fit, fixed_loader):
    loader = fixed_loader(2, 2)
    _, watch = fit(loader, LossScaler(2.0**127, True), model=nn.Sequential(nn.Flatten(), nn.Linear(48, 3)))
    assert watch.state.step == 2
    loader.batches[1] = (paddle.full([2, 3, 4, 4], float("nan")), loader.batches[1][1])
    with pytest.raises(NumericsError, match="batch 2: the loss is nan"):
        fit(loader, LossScaler(2.0, True), model=nn.Sequential(nn.Flatten(), nn.Linear(48, 3)))


def test_schedule_and_step_go_on_in_an_update_that_is_left_out_and_the_average_does_not(fit, fixed_loader):
    loader = fixed_loader(2, 2, 2)
    loader.batches[1] = (loader.batches[1][0] * 1e37, loader.batches[1][1])
    rate = Piecewise(10, 1, [1, 2], [0.1, 0.01, 0.001])
    model = nn.Sequential(Overflow(), nn.Linear(48, 3))
    start = model[1].bias.numpy().copy()
    _, watch = fit(loader, LossScaler(1024.0), ema=0.5, model=model, rate=rate)
    assert (watch.state.scaling["skipped_updates"], watch.state.step, watch.schedule.last_epoch) == (1, 3, 3)
    assert watch.rates == [0.1, 0.01, 0.001]
    first, _, third = watch.biases
    average = 0.5 * (0.5 * start + 0.5 * first) + 0.5 * third
    np.testing.assert_allclose(watch.ema.model[1].bias.numpy(), average, atol=1e-6)


def test_state_goes_through_json_and_back():
    scaler = LossScaler(2.0**16, True, incr_every_n_steps=5)
    for is_finite in (False, True, True, False, True):
        scaler.adapt(is_finite)
    restored = LossScaler(1.0, True, incr_every_n_steps=5)
    restored.load_state_dict(json.loads(json.dumps(scaler.state_dict())))
    assert restored.state_dict() == {"scale": 2.0**14, "incr_count": 1, "decr_count": 0, "skipped": 2, "stuck": 0}


def test_state_of_paddles_own_scaler_is_read():
    # the keys that paddle.amp.GradScaler.state_dict documents
    stored = {"scale": [512.0], "incr_ratio": 2.0, "decr_ratio": 0.5, "incr_every_n_steps": 1000}
    stored |= {"decr_every_n_nan_or_inf": 2, "incr_count": 7, "decr_count": 1, "use_dynamic_loss_scaling": True}
    scaler = LossScaler(65536.0, True)
    scaler.load_state_dict(stored)
    assert scaler.state_dict() == {"scale": 512.0, "incr_count": 7, "decr_count": 1, "skipped": 0, "stuck": 0}


def test_a_fixed_scale_is_the_files_not_the_checkpoints():
    scaler = LossScaler(128.0)
    scaler.load_state_dict(LossScaler(1024.0).state_dict())
    assert scaler.scale == 128.0


def test_two_and_two_epochs_equal_four_with_a_moving_scale(toy_engine, tmp_path):
    # 5 updates an epoch; doubled every third, so the count is in the middle at the end of an epoch
    amp = "AMP={level: O0, scale_loss: 1.0e+38, use_dynamic_loss_scaling: true, incr_every_n_steps: 3}"
    root = f"Global.output_dir={tmp_path}"
    whole = toy_engine(amp, "Global.epochs=4", f"{root}/whole")
    whole.train()
    toy_engine(amp, "Global.epochs=2", f"{root}/parts").train()
    parts = toy_engine(amp, "Global.epochs=4", f"{root}/parts", "Global.checkpoints=auto")
    parts.train()
    expected = whole.parts.model.state_dict()
    for name, tensor in parts.parts.model.state_dict().items():
        assert np.array_equal(tensor.numpy(), expected[name].numpy()), name
    assert parts.parts.precision.state_dict() == whole.parts.precision.state_dict()


def test_scale_and_updates_left_out_are_in_every_record(toy_engine, tmp_path):
    toy_engine("AMP={level: O0, scale_loss: 1024}", "Global.epochs=1").train()
    lines = (tmp_path / "output" / "train.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if record["event"] == "train"]
    assert records and all((each["loss_scale"], each["skipped_updates"]) == (1024.0, 0) for each in records)


@pytest.mark.parametrize(
    ("amp", "message"),
    [
        ("{scale_loss: 0.5}", "AMP.scale_loss: .*0.5"),
        ("{scale_loss: 1.0e+39}", "AMP.scale_loss: .*1e\\+39"),
        ("{min_loss_scale: 0}", "AMP.min_loss_scale: "),
        ("{use_dynamic_loss_scaling: true, min_loss_scale: 2}", "scale_loss is 1, below min_loss_scale 2"),
        ("{incr_every_n_steps: 0}", "AMP.incr_every_n_steps: "),
    ],
)
def test_scales_that_make_no_sense_are_refused(toy_config, amp, message):
    with pytest.raises(ConfigError, match=message):
        toy_config(f"AMP={amp}")
