# SPDX-License-Identifier: Apache-2.0
"""Learning rate schedules: each a formula of the step number, so that a step number is all there is to resume.

A schedule's step is one optimizer update, or one epoch with ``by_epoch``. Parameters that every schedule takes:

* ``epochs``, ``step_each_epoch``: length of the training and updates in an epoch; the framework supplies them.
* ``learning_rate``: the rate that the warmup ends at and the decay starts from.
* ``warmup_epoch``: length of the warmup in epochs; a fraction is allowed unless ``by_epoch``. What follows
  the warmup is shifted, not cut: a decay after 30 epochs comes 30 epochs after the warmup. A warmup of
  ``epochs`` or more lasts for the whole training.
* ``warmup_overlaps``: count the decay from the first step of the training instead of from the end of the warmup,
  which then covers its beginning (MindSpore's rule; with it a rate may jump where the warmup ends).
* ``warmup_start_lr``: the rate of the first step of the warmup, which rises linearly.
* ``last_epoch``: the number of the last step taken before; -1 starts from the beginning.
* ``by_epoch``: the rate changes after an epoch, not after an update.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_right
from collections.abc import Sequence

from ppcls.config.registry import SCHEDULES
from ppcls.optimizer.timeline import Schedule, Timeline

logger = logging.getLogger("ppcls")


@SCHEDULES.register
def Constant(
    epochs: int, step_each_epoch: int, learning_rate: float, last_epoch: int = -1, by_epoch: bool = False
) -> Schedule:
    """One rate throughout; ``ConstLR`` has a warmup as well.

    YAML::

        lr: {name: Constant, learning_rate: 0.001}
    """
    return ConstLR(epochs, step_each_epoch, learning_rate, last_epoch=last_epoch, by_epoch=by_epoch)


@SCHEDULES.register
def ConstLR(
    epochs: int,
    step_each_epoch: int,
    learning_rate: float,
    warmup_epoch: float = 0,
    warmup_start_lr: float = 0.0,
    last_epoch: int = -1,
    by_epoch: bool = False,
) -> Schedule:
    """One rate after the warmup.

    YAML::

        lr: {name: ConstLR, learning_rate: 0.1, warmup_epoch: 5}
    """
    timeline = Timeline(epochs, step_each_epoch, by_epoch, warmup_epoch)
    return Schedule(lambda step: learning_rate, timeline.warmup_steps, warmup_start_lr, by_epoch, last_epoch)


@SCHEDULES.register
def Piecewise(
    epochs: int,
    step_each_epoch: int,
    decay_epochs: list[float],
    values: list[float],
    warmup_epoch: float = 0,
    warmup_start_lr: float = 0.0,
    last_epoch: int = -1,
    by_epoch: bool = False,
    learning_rate: float | None = None,
    warmup_overlaps: bool = False,
) -> Schedule:
    """``values[i]`` until ``decay_epochs[i]``, then the next; the last value to the end.

    Args:
        epochs: length of the training.
        step_each_epoch: optimizer updates in an epoch.
        decay_epochs: when the next value begins, in epochs after the warmup, rising.
        values: rates, one more than ``decay_epochs``.
        warmup_epoch: length of the warmup, which rises to ``values[0]``.
        warmup_start_lr: the rate of the first step of the warmup.
        last_epoch: the number of the last step taken before.
        by_epoch: the rate changes after an epoch, not after an update.
        warmup_overlaps: count the decay from the first step of the training.
        learning_rate: has no effect; many files for PaddleClas give it.

    Raises:
        ValueError: the two lists do not fit each other, or ``decay_epochs`` does not rise.

    YAML::

        lr: {name: Piecewise, decay_epochs: [30, 60, 90], values: [0.1, 0.01, 0.001, 0.0001]}
    """
    if len(values) != len(decay_epochs) + 1:
        raise ValueError(f"{len(decay_epochs)} decay_epochs need {len(decay_epochs) + 1} values; got {len(values)}")
    _check_rising("decay_epochs", decay_epochs)
    # PaddleClas: with learning_rate, "a tenth every 30 epochs" takes the place of decay_epochs and values.
    if learning_rate is not None and any(
        not math.isclose(values[bisect_right(decay_epochs, epoch)], learning_rate * 0.1 ** (epoch // 30))
        for epoch in range(epochs)
    ):
        logger.warning(
            "Piecewise: decay_epochs %s and values %s are obeyed; learning_rate %s has no effect, "
            "where PaddleClas would divide it by 10 every 30 epochs; remove it, or write the values you want",
            decay_epochs,
            values,
            learning_rate,
        )
    timeline = Timeline(epochs, step_each_epoch, by_epoch, warmup_epoch, warmup_overlaps)
    boundaries = [epoch * timeline.steps_each_epoch for epoch in decay_epochs]

    def decay(step: int) -> float:
        return values[bisect_right(boundaries, step)]

    return Schedule(decay, timeline.warmup_steps, warmup_start_lr, by_epoch, last_epoch, timeline.decay_start)


@SCHEDULES.register
def Step(
    epochs: int,
    step_each_epoch: int,
    learning_rate: float,
    step_size: float,
    gamma: float,
    warmup_epoch: float = 0,
    warmup_start_lr: float = 0.0,
    last_epoch: int = -1,
    by_epoch: bool = False,
    warmup_overlaps: bool = False,
) -> Schedule:
    """Multiply the rate by ``gamma`` every ``step_size`` epochs (rounded down to whole updates).

    Raises:
        ValueError: ``gamma`` not between 0 and 1, ``step_size`` shorter than a step or, with ``by_epoch``, not whole.

    YAML::

        lr: {name: Step, learning_rate: 0.016, step_size: 2.4, gamma: 0.97, warmup_epoch: 5}
    """
    _check_gamma(gamma)
    timeline = Timeline(epochs, step_each_epoch, by_epoch, warmup_epoch, warmup_overlaps)
    if by_epoch and step_size != int(step_size):
        raise ValueError(f"with by_epoch the rate changes between epochs: step_size {step_size} must be whole")
    interval = int(step_size * timeline.steps_each_epoch)
    if interval < 1:
        raise ValueError(f"step_size {step_size} is shorter than one step of {1 / timeline.steps_each_epoch:g} epochs")
    return Schedule(
        lambda step: learning_rate * gamma ** (step // interval),
        timeline.warmup_steps,
        warmup_start_lr,
        by_epoch,
        last_epoch,
        timeline.decay_start,
    )


@SCHEDULES.register
def MultiStepDecay(
    epochs: int,
    step_each_epoch: int,
    learning_rate: float,
    milestones: list[float],
    gamma: float = 0.1,
    warmup_epoch: float = 0,
    warmup_start_lr: float = 0.0,
    last_epoch: int = -1,
    by_epoch: bool = False,
    warmup_overlaps: bool = False,
) -> Schedule:
    """Multiply the rate by ``gamma`` at each of ``milestones``, in epochs after the warmup.

    Raises:
        ValueError: ``gamma`` not between 0 and 1, or ``milestones`` does not rise.

    YAML::

        lr: {name: MultiStepDecay, learning_rate: 0.1, milestones: [30, 60, 90], gamma: 0.1}
    """
    _check_gamma(gamma)
    _check_rising("milestones", milestones)
    timeline = Timeline(epochs, step_each_epoch, by_epoch, warmup_epoch, warmup_overlaps)
    boundaries = [epoch * timeline.steps_each_epoch for epoch in milestones]

    def decay(step: int) -> float:
        return learning_rate * gamma ** bisect_right(boundaries, step)

    return Schedule(decay, timeline.warmup_steps, warmup_start_lr, by_epoch, last_epoch, timeline.decay_start)


@SCHEDULES.register
def Cosine(
    epochs: int,
    step_each_epoch: int,
    learning_rate: float,
    eta_min: float = 0.0,
    warmup_epoch: float = 0,
    warmup_start_lr: float = 0.0,
    last_epoch: int = -1,
    by_epoch: bool = False,
    warmup_overlaps: bool = False,
    T_max: float | None = None,
) -> Schedule:
    """Fall to ``eta_min`` along half a cosine (Loshchilov and Hutter, arXiv:1608.03983, equation 5).

    Past its end the cosine goes on, so the rate rises again.

    Args:
        epochs: length of the training.
        step_each_epoch: optimizer updates in an epoch.
        learning_rate: the rate where the cosine starts.
        eta_min: the rate where it ends.
        warmup_epoch: length of the warmup.
        warmup_start_lr: the rate of the first step of the warmup.
        last_epoch: the number of the last step taken before.
        by_epoch: the rate changes after an epoch, not after an update.
        warmup_overlaps: count the decay from the first step of the training.
        T_max: length of the half cosine in epochs; None means to the end of the training.

    Raises:
        ValueError: ``T_max`` is not positive.

    YAML::

        lr: {name: Cosine, learning_rate: 0.5, warmup_epoch: 5}
    """
    timeline = Timeline(epochs, step_each_epoch, by_epoch, warmup_epoch, warmup_overlaps)

    if T_max is not None and T_max <= 0:
        raise ValueError(f"T_max must be above 0; leave it out for a cosine that ends with the training; got {T_max}")
    length = timeline.decay_steps if T_max is None else T_max * timeline.steps_each_epoch

    def decay(step: int) -> float:
        if length == 0:
            return learning_rate
        return eta_min + (learning_rate - eta_min) * (1 + math.cos(math.pi * step / length)) / 2

    return Schedule(decay, timeline.warmup_steps, warmup_start_lr, by_epoch, last_epoch, timeline.decay_start)


@SCHEDULES.register
def Linear(
    epochs: int,
    step_each_epoch: int,
    learning_rate: float,
    end_lr: float = 0.0,
    power: float = 1.0,
    cycle: bool = False,
    warmup_epoch: float = 0,
    warmup_start_lr: float = 0.0,
    last_epoch: int = -1,
    by_epoch: bool = False,
    warmup_overlaps: bool = False,
) -> Schedule:
    """Fall to ``end_lr`` along a polynomial of degree ``power``, a straight line by default.

    Args:
        epochs: length of the training.
        step_each_epoch: optimizer updates in an epoch.
        learning_rate: the rate where the decay starts.
        end_lr: the rate at the end of the training, and after it.
        power: above 1 the rate falls faster at first, below 1 at last.
        cycle: past the end, start again on a curve twice, three times, ... as long, instead of staying at ``end_lr``.
        warmup_epoch: length of the warmup.
        warmup_start_lr: the rate of the first step of the warmup.
        last_epoch: the number of the last step taken before.
        by_epoch: the rate changes after an epoch, not after an update.
        warmup_overlaps: count the decay from the first step of the training.

    Raises:
        ValueError: ``power`` is not positive.

    YAML::

        lr: {name: Linear, learning_rate: 0.1, warmup_epoch: 1}
    """
    if power <= 0:
        raise ValueError(f"power must be above 0, or the rate would not fall; got {power}")
    timeline = Timeline(epochs, step_each_epoch, by_epoch, warmup_epoch, warmup_overlaps)

    def decay(step: int) -> float:
        if timeline.decay_steps == 0:
            return learning_rate
        cycles = max(1, math.ceil(step / timeline.decay_steps)) if cycle else 1
        progress = min(step / (cycles * timeline.decay_steps), 1.0)
        return end_lr + (learning_rate - end_lr) * (1 - progress) ** power

    return Schedule(decay, timeline.warmup_steps, warmup_start_lr, by_epoch, last_epoch, timeline.decay_start)


def _check_rising(name: str, epochs: Sequence[float]) -> None:
    if any(later <= earlier for earlier, later in zip(epochs, epochs[1:])):
        raise ValueError(f"{name} must rise from entry to entry; got {list(epochs)}")


def _check_gamma(gamma: float) -> None:
    if not 0 < gamma < 1:
        raise ValueError(f"gamma must be between 0 and 1, or the rate would not fall; got {gamma}")
