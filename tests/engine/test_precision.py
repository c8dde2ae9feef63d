# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import paddle
import pytest

from ppcls.engine.precision import Precision
from ppcls.utils.errors import ConfigError


@pytest.fixture
def some_gpu(monkeypatch):
    """As if the current device were a GPU, as far as `Precision` asks."""
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")


def test_off_is_float32_and_an_ordinary_update():
    layer = paddle.nn.Linear(2, 1, bias_attr=False)
    before = layer.weight.numpy()
    optimizer = paddle.optimizer.SGD(0.5, layer.parameters())
    precision = Precision()
    with precision.autocast():
        output = layer(paddle.to_tensor([[1.0, 2.0]]))
    assert output.dtype == paddle.float32
    precision.backward(output.sum())
    precision.update(optimizer)
    np.testing.assert_allclose(layer.weight.numpy(), before - 0.5 * np.array([[1.0], [2.0]]), rtol=1e-6)
    assert layer.weight.grad is None or not layer.weight.grad.numpy().any()


def test_a_type_that_the_device_lacks_is_refused_with_advice(some_gpu, monkeypatch):
    monkeypatch.setattr(paddle.amp, "is_float16_supported", lambda: False)
    monkeypatch.setattr(paddle.amp, "is_bfloat16_supported", lambda: True)
    with pytest.raises(ConfigError, match="does not compute in float16; write AMP.dtype: bfloat16"):
        Precision(True, dtype="float16")
    monkeypatch.setattr(paddle.amp, "is_bfloat16_supported", lambda: False)
    with pytest.raises(ConfigError, match="remove the AMP section"):
        Precision(True, dtype="bfloat16")


def test_off_never_asks_what_the_device_can_do(monkeypatch):
    monkeypatch.setattr(paddle.amp, "is_float16_supported", lambda: False)
    Precision(False, dtype="float16")


def test_on_a_cpu_it_is_refused_as_paddle_would_stay_in_float32():
    with pytest.raises(ConfigError, match="not on a CPU; write AMP.use_amp: false"):
        Precision(True, dtype="bfloat16")


def test_state_of_a_run_without_scaling_changes_nothing():
    precision = Precision()
    precision.load_state_dict({})
    assert json.dumps(precision.state_dict()) == "{}"
