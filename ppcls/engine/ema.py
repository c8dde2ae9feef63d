# SPDX-License-Identifier: Apache-2.0
"""A moving average of a model's weights."""

from __future__ import annotations

import copy

import paddle
from paddle import nn


class ModelEMA:
    """A second model whose weights follow the first one's slowly.

    After every update, ``average = decay * average + (1 - decay) * weight`` for each parameter and
    each running statistic. The average starts from the first weights and has no warmup.

    Args:
        model: the model that is trained.
        decay: the share of the old average that an update keeps, 0 to 1.

    Attributes:
        model: the average, in evaluation mode.
    """

    def __init__(self, model: nn.Layer, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model)
        self.model.eval()
        for parameter in self.model.parameters():
            parameter.stop_gradient = True

    @paddle.no_grad()
    def update(self, model: nn.Layer) -> None:
        """Move the average towards the model's present weights."""
        weights = model.state_dict()
        for name, average in self.model.state_dict().items():
            weight = weights[name]
            if average.is_floating_point():
                average.set_value(self.decay * average + (1.0 - self.decay) * weight.astype(average.dtype))
            else:
                average.set_value(weight)
