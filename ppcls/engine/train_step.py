# SPDX-License-Identifier: Apache-2.0
"""What is computed of one batch: the model's output, and the loss that is minimized."""

from __future__ import annotations

from dataclasses import dataclass

import paddle
from paddle import nn

from ppcls.arch.output import logits_of
from ppcls.config.registry import TRAIN_STEPS
from ppcls.data.loader import Batch


@dataclass
class StepOutput:
    """What one batch gave: the loss that is minimized, its parts, logits [N, class_num], labels, N."""

    loss: paddle.Tensor
    parts: dict[str, paddle.Tensor]
    logits: paddle.Tensor
    labels: paddle.Tensor
    num_samples: int


@TRAIN_STEPS.register
class ClassificationStep:
    """Forward and loss of plain classification.

    Args:
        model: images to output.
        loss: (output, labels) to named scalars, ``loss`` among them.
    """

    def __init__(self, model: nn.Layer, loss: nn.Layer) -> None:
        self.model = model
        self.loss = loss

    def __call__(self, batch: Batch) -> StepOutput:
        """Compute one batch of images [N, C, H, W] and labels [N]."""
        images, labels = batch
        output = self.model(images)
        parts = self.loss(output, labels)
        return StepOutput(parts["loss"], parts, logits_of(output).detach(), labels, len(labels))
