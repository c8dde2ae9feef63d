# SPDX-License-Identifier: Apache-2.0
"""What every learning rate schedule stands on: a rate by step number after a linear warmup, and lengths in steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paddle.optimizer.lr import LRScheduler


class Schedule(LRScheduler):
    """A learning rate that is a function of the step number, after a linear warmup.

    Args:
        decay: the rate at a step counted from the end of the warmup.
        warmup_steps: length of the warmup.
        warmup_start_lr: the rate at step 0; it rises to ``decay(0)``.
        by_epoch: whether the owner calls ``step`` after each epoch, not after each update.
        last_epoch: the number of the last step taken before.
        decay_start: the step that ``decay`` counts from; None means the end of the warmup.

    Raises:
        ValueError: the warmup would have to fall, or a rate is negative.
    """

    def __init__(
        self,
        decay: Callable[[int], float],
        warmup_steps: int = 0,
        warmup_start_lr: float = 0.0,
        by_epoch: bool = False,
        last_epoch: int = -1,
        decay_start: int | None = None,
    ) -> None:
        peak = decay(0)
        if warmup_steps and not 0 <= warmup_start_lr <= peak:
            raise ValueError(f"warmup_start_lr must be from 0 to the learning rate {peak}; got {warmup_start_lr}")
        self.decay = decay
        self.warmup_steps = warmup_steps
        self.warmup_start_lr = warmup_start_lr
        self.decay_start = warmup_steps if decay_start is None else decay_start
        self.by_epoch = by_epoch
        super().__init__(peak, last_epoch)

    def rate(self, step: int) -> float:
        """The learning rate of the given step, counted from 0."""
        if step < self.warmup_steps:
            return self.warmup_start_lr + (self.base_lr - self.warmup_start_lr) * step / self.warmup_steps
        return self.decay(step - self.decay_start)

    def get_lr(self) -> float:
        """The learning rate of the present step."""
        return self.rate(self.last_epoch)

    def state_keys(self) -> None:
        """Say what ``state_dict`` holds: the step number, from which the rate follows."""
        self.keys = ["last_epoch"]

    def set_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to the step that ``state_dict`` holds; other entries, such as a rate, are not needed.

        Raises:
            KeyError: it has no ``last_epoch``.
        """
        self.step(state_dict["last_epoch"])

    set_dict = set_state_dict


class Timeline:
    """The length of a training and of its warmup, in the steps of its schedule.

    Args:
        epochs: length of the training.
        step_each_epoch: optimizer updates in an epoch.
        by_epoch: whether a step is an epoch.
        warmup_epoch: length of the warmup.
        warmup_overlaps: whether the decay begins with the training, not after the warmup.

    Attributes:
        steps_each_epoch: steps of the schedule in an epoch.
        warmup_steps: steps of the warmup.
        decay_start: the step that the decay begins at.
        decay_steps: steps from there to the end.

    Raises:
        ValueError: a length is not positive, or ``warmup_epoch`` is a fraction with ``by_epoch``.
    """

    def __init__(
        self,
        epochs: int,
        step_each_epoch: int,
        by_epoch: bool,
        warmup_epoch: float = 0.0,
        warmup_overlaps: bool = False,
    ) -> None:
        if epochs < 1 or step_each_epoch < 1:
            raise ValueError(f"a schedule needs at least one epoch and one step; got {epochs} and {step_each_epoch}")
        if warmup_epoch < 0:
            raise ValueError(f"warmup_epoch must be 0 or more; got {warmup_epoch}")
        if by_epoch and warmup_epoch != int(warmup_epoch):
            raise ValueError(
                f"with by_epoch the rate changes between epochs: warmup_epoch {warmup_epoch} must be whole"
            )
        self.steps_each_epoch = 1 if by_epoch else step_each_epoch
        # PaddleClas: a warmup longer than the training is cut to it.
        self.warmup_steps = round(min(warmup_epoch, epochs) * self.steps_each_epoch)
        self.decay_start = 0 if warmup_overlaps else self.warmup_steps
        self.decay_steps = epochs * self.steps_each_epoch - self.decay_start
