# SPDX-License-Identifier: Apache-2.0
import json
from contextlib import contextmanager

import numpy as np
import paddle
import pytest

from ppcls.engine.loss_scale import LossScaler
from ppcls.engine.precision import Precision
from ppcls.utils.errors import ConfigError


@pytest.fixture
def device_with(monkeypatch):
    """As if the current device had these small types: autocast of others warns and does nothing, as Paddle's does."""
    product = paddle.matmul

    def make(*types):
        current = []

        @contextmanager
        def auto_cast(level, dtype, use_promote):
            current.append(dtype if dtype in types else "float32")
            try:
                yield
            finally:
                current.pop()

        def matmul(x, y):
            return product(x, y).astype(current[-1] if current else "float32")

        monkeypatch.setattr(paddle.amp, "auto_cast", auto_cast)
        monkeypatch.setattr(paddle, "matmul", matmul)

    return make


def test_off_is_float32_and_an_ordinary_update():
    layer = paddle.nn.Linear(2, 1, bias_attr=False)
    before = layer.weight.numpy()
    optimizer = paddle.optimizer.SGD(0.5, layer.parameters())
    precision = Precision()
    with precision.autocast():
        output = layer(paddle.to_tensor([[1.0, 2.0]]))
    assert output.dtype == paddle.float32
    precision.backward(output.sum())
    assert precision.update(optimizer)
    np.testing.assert_allclose(layer.weight.numpy(), before - 0.5 * np.array([[1.0], [2.0]]), rtol=1e-6)
    assert layer.weight.grad is None or not layer.weight.grad.numpy().any()


@pytest.mark.parametrize("level", ["O1", "O2"])
def test_a_type_that_the_device_lacks_is_refused_with_advice(device_with, level):
    device_with("bfloat16")
    with pytest.raises(ConfigError, match="does not compute in float16 on .*; write AMP.dtype: bfloat16, or"):
        Precision(level, "float16")
    device_with()
    with pytest.raises(ConfigError, match="does not compute in bfloat16 on .*; write AMP.use_amp: false, or"):
        Precision(level, "bfloat16")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_type_that_the_device_has_is_taken(device_with, dtype):
    device_with(dtype)
    assert Precision("O1", dtype).dtype == dtype


@pytest.mark.parametrize("level", ["O1", "O2"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("scaler", [LossScaler(1024.0), LossScaler(65536.0, True)])
def test_on_a_cpu_paddle_stays_in_float32_so_that_it_is_refused_in_one_line(level, dtype, scaler):
    if paddle.get_device() != "cpu":
        pytest.skip("there is an accelerator")
    with pytest.raises(
        ConfigError, match=f"does not compute in {dtype} on cpu; write AMP.use_amp: false, or AMP.level"
    ) as caught:
        Precision(level, dtype, scaler=scaler)
    assert "\n" not in str(caught.value)


def test_without_small_types_the_device_is_never_asked(monkeypatch):
    monkeypatch.setattr(paddle, "matmul", None)
    Precision("O0", "float16", scaler=LossScaler())


def test_state_of_a_run_without_scaling_changes_nothing():
    precision = Precision()
    precision.load_state_dict({})
    assert json.dumps(precision.state_dict()) == "{}"
    scaled = Precision(scaler=LossScaler(64.0, True))
    scaled.load_state_dict({})
    assert scaled.state_dict()["scale"] == 64.0
