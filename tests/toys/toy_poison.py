# SPDX-License-Identifier: Apache-2.0
"""At one place of a training something is not finite, however often that place is computed."""

import paddle
from paddle import nn

from ppcls.engine.gradients import Gradients
from ppcls.engine.train_step import ClassificationStep
from ppcls.engine.trainer import Trainer
from ppcls.utils import dist

BAD_IMAGES = [1, 3]
"""The images of the batch that are spoiled, where it is the input."""


class Poison:
    """Puts a value into the input, the loss, the gradients or the running statistics of some batches.

    Args:
        where: ``input``, ``loss``, ``gradient`` or ``statistics``.
        value: what is put there.
        places: (epoch, batch) of the batches.
        rank: the only process that does it; None for all.
    """

    def __init__(self, where, value, places, rank=None):
        self.where = where
        self.value = value
        self.places = places
        self.rank = rank
        self.now = None
        self.calls = []

    def put_in(self, set_attribute=setattr):
        """Change the classes of the framework; ``set_attribute`` may be that of a monkeypatch."""
        poison, step, compute, once = self, Trainer.step, ClassificationStep.__call__, Gradients.once

        def step_at(self, batch, state):
            poison.now = (state.epoch, state.batch)
            return step(self, batch, state)

        def compute_spoiled(self, batch):
            poison.calls.append(poison.now)
            return poison.spoil(lambda batch: compute(self, batch), batch) if poison.is_here else compute(self, batch)

        def once_spoiled(self, *arguments, **named):
            output = once(self, *arguments, **named)
            if poison.is_here and poison.where == "statistics":
                poison.spoil_statistics(self.model)
            return output

        set_attribute(Trainer, "step", step_at)
        set_attribute(ClassificationStep, "__call__", compute_spoiled)
        set_attribute(Gradients, "once", once_spoiled)
        return self

    @property
    def is_here(self):
        return self.now in self.places and self.rank in (None, dist.rank())

    def spoil(self, compute, batch):
        images, labels = batch
        if self.where == "input":
            images = images.clone()
            for number in BAD_IMAGES:
                images[number, 0, 2, 2] = self.value
        output = compute((images, labels))
        if self.where == "loss":
            output.loss = output.parts["loss"] = output.loss + self.value
        elif self.where == "gradient":
            output.loss.register_hook(lambda gradient: gradient * self.value)
        return output

    @paddle.no_grad()
    def spoil_statistics(self, model):
        norm = next(layer for layer in model.sublayers() if isinstance(layer, nn.BatchNorm2D))
        norm._variance[2] = paddle.to_tensor(self.value)
