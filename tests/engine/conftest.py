# SPDX-License-Identifier: Apache-2.0
"""What the tests of the engine share: fixed batches, small nets, and an `Engine` over small images."""

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls.utils.logger import stop_logging


class FixedLoader:
    """The same batches in every epoch; remembers the epochs that were asked for."""

    def __init__(self, batches):
        self.batches = batches
        self.epochs = []

    def set_epoch(self, epoch):
        self.epochs.append(epoch)

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return self.iterate()

    def iterate(self, start=0):
        return iter(self.batches[start:])


class CrossEntropy(nn.Layer):
    def forward(self, output, labels):
        loss = nn.functional.cross_entropy(output, labels)
        return {"CELoss": loss, "loss": loss}


@pytest.fixture
def cross_entropy():
    return CrossEntropy()


@pytest.fixture
def fixed_loader():
    """Batches of 2 x 3 x 4 x 4 noise and labels of 3 classes, for given batch sizes."""

    def make(*sizes):
        rng = np.random.RandomState(5)
        images = rng.standard_normal([sum(sizes), 3, 4, 4]).astype("float32")
        labels = rng.randint(0, 3, sum(sizes))
        ends = np.cumsum(sizes)
        return FixedLoader(
            [
                (paddle.to_tensor(images[end - size : end]), paddle.to_tensor(labels[end - size : end]))
                for size, end in zip(sizes, ends)
            ]
        )

    return make


@pytest.fixture
def small_net():
    """A net for 3 x 4 x 4 images and 3 classes, the same weights each time."""

    def make(norm=False, dropout=0.0):
        paddle.seed(3)
        layers = [nn.Conv2D(3, 4, 3, padding=1), nn.BatchNorm2D(4) if norm else nn.Identity(), nn.ReLU()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout), nn.Linear(64, 3))

    return make


@pytest.fixture(autouse=True)
def log_files_closed():
    yield
    stop_logging()


@pytest.fixture
def toy_engine(toy_config):
    from ppcls.engine import Engine

    return lambda *overrides: Engine(toy_config(*overrides))
