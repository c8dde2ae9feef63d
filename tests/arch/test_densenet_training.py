# SPDX-License-Identifier: Apache-2.0
"""Eight optimizer steps of DenseNet121 on one batch, against PaddleClas's own losses."""

import json

import numpy as np
import paddle
import pytest

from ppcls.config.registry import ARCHS

# From the reference vectors: float64, Momentum 0.9, L2 1e-4, learning rate 1e-5.
SMALL_RATE_LOSSES = [
    3.141436099025013,
    3.0666703174695735,
    2.9403028517935974,
    2.7929885144148656,
    2.6481325012488197,
    2.5113979395426904,
    2.3828916655719494,
    2.2617873285074035,
]
FLOAT32_FIRST_LOSS = 3.1414339542388916


@pytest.fixture
def losses_of_run(fill_rule, reference_images):
    """A function that trains from the fill rule and returns the loss before each update."""

    def run(dtype, learning_rate, num_steps):
        paddle.set_default_dtype(dtype)
        try:
            model = fill_rule(ARCHS["DenseNet121"](class_num=10))
        finally:
            paddle.set_default_dtype("float32")
        optimizer = paddle.optimizer.Momentum(
            learning_rate, momentum=0.9, parameters=model.parameters(), weight_decay=paddle.regularizer.L2Decay(1e-4)
        )
        images = paddle.to_tensor(reference_images((4, 3, 64, 64)).astype(dtype))
        labels = paddle.to_tensor(np.random.RandomState(1235).randint(0, 10, (4, 1)))
        losses = []
        for _ in range(num_steps):
            loss = paddle.nn.functional.cross_entropy(model(images), labels)
            losses.append(float(loss))
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
        return losses

    return run


def test_first_loss_in_float32(losses_of_run):
    assert losses_of_run("float32", 0.01, num_steps=1) == pytest.approx([FLOAT32_FIRST_LOSS], rel=1e-5)


def test_eight_losses_in_float64_at_a_small_rate(losses_of_run):
    losses = losses_of_run("float64", 1e-5, num_steps=8)
    assert losses == pytest.approx(SMALL_RATE_LOSSES, rel=1e-5)


@pytest.mark.parametrize("learning_rate", [0.01, 0.0001, 1e-5])
def test_eight_losses_in_float64_equal_the_reference(reference, losses_of_run, learning_rate):
    record = json.loads((reference / "train" / "densenet121_trajectory.json").read_text())
    plain_momentum = {
        "name": "Momentum",
        "momentum": 0.9,
        "lr": {"name": "Constant", "learning_rate": learning_rate},
        "regularizer": {"name": "L2", "coeff": 0.0001},
    }
    (expected,) = [
        run["losses"]
        for run in record["runs"]
        if run["dtype"] == "float64" and not run["loss_params"] and run["optimizer"] == plain_momentum
    ]
    losses = losses_of_run("float64", learning_rate, num_steps=8)
    assert losses == pytest.approx(expected, rel=1e-5)
