# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging
import math
from typing import Any

import paddle
import pytest

from ppcls.config.registry import SCHEDULES
from ppcls.optimizer.schedule import Constant, ConstLR, Cosine, Linear, MultiStepDecay, Piecewise, Step
from ppcls.optimizer.timeline import Schedule

NAMES = ["Constant", "ConstLR", "Piecewise", "Step", "MultiStepDecay", "Cosine", "Linear"]


def rates(schedule: Schedule, steps: int) -> list[float]:
    """The rates that an optimizer sees when the schedule is stepped after each update."""
    seen = []
    for _ in range(steps):
        seen.append(schedule())
        schedule.step()
    return seen


def test_all_are_registered():
    assert [name for name in NAMES if name in SCHEDULES] == NAMES


def test_constant():
    assert rates(Constant(2, 3, 0.1), 8) == [0.1] * 8


def test_warmup_rises_linearly_from_its_start_to_the_rate():
    schedule = ConstLR(10, 4, 0.5, warmup_epoch=1, warmup_start_lr=0.1)
    assert rates(schedule, 6) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5])


def test_warmup_of_half_an_epoch():
    schedule = Cosine(2, 4, 1.0, warmup_epoch=0.5)
    decay = [(1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]
    assert rates(schedule, 8) == pytest.approx([0.0, 0.5, *decay])
    assert rates(Linear(2, 4, 1.0, warmup_epoch=0.5), 8) == pytest.approx(
        [0, 0.5, *(1 - step / 6 for step in range(6))]
    )


def test_warmup_shifts_later_boundaries():
    schedule = Piecewise(10, 2, [3], [1.0, 0.1], warmup_epoch=2)
    assert rates(schedule, 12) == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 0.1, 0.1])


@pytest.mark.parametrize("make", [Cosine, Linear])
def test_warmup_longer_than_the_training_lasts_for_all_of_it(make):
    assert rates(make(2, 2, 1.0, warmup_epoch=7), 5) == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])


def test_linear_by_epoch_warms_up_in_epochs():
    # PaddleClas counts this warmup in iterations and so never ends it.
    assert rates(Linear(4, 100, 1.0, warmup_epoch=2, by_epoch=True), 4) == pytest.approx([0, 0.5, 1.0, 0.5])


def test_step_rounds_its_interval_down():
    schedule = Step(3, 3, 1.0, step_size=1.5, gamma=0.5)
    assert rates(schedule, 9) == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25]


def test_multi_step():
    assert rates(MultiStepDecay(4, 2, 1.0, [1, 3], 0.5), 8) == [1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_cosine_ends_at_eta_min():
    assert Cosine(2, 5, 0.5, eta_min=0.1).rate(10) == pytest.approx(0.1)


def test_linear_power_and_what_follows_the_end():
    assert rates(Linear(1, 2, 1.0, end_lr=0.2, power=2.0), 4) == pytest.approx([1.0, 0.2 + 0.8 / 4, 0.2, 0.2])
    assert Linear(1, 2, 1.0, cycle=True).rate(3) == pytest.approx(1 - 3 / 4)


def test_by_epoch_counts_epochs_and_says_so():
    schedule = Piecewise(3, 100, [1, 2], [1.0, 0.1, 0.01], by_epoch=True)
    assert schedule.by_epoch
    assert rates(schedule, 3) == [1.0, 0.1, 0.01]
    assert not Constant(3, 100, 0.1).by_epoch


def test_last_epoch_starts_after_the_step_given():
    whole = rates(Cosine(2, 5, 1.0, warmup_epoch=1), 10)
    assert rates(Cosine(2, 5, 1.0, warmup_epoch=1, last_epoch=3), 6) == whole[4:]


@pytest.mark.parametrize("steps", [0, 3, 17])
def test_resuming_gives_the_very_same_rates(steps):
    def make() -> Schedule:
        return Cosine(4, 5, 0.3, eta_min=0.001, warmup_epoch=1.5)

    schedule, resumed = make(), make()
    rates(schedule, steps)
    state = json.loads(json.dumps(schedule.state_dict()))
    assert state == {"last_epoch": steps}
    resumed.set_state_dict(state)
    assert rates(resumed, 25) == rates(schedule, 25)


def test_state_of_paddles_own_schedulers_is_understood():
    schedule = Constant(2, 2, 0.1)
    schedule.set_dict({"last_epoch": 7, "last_lr": 0.5, "LinearWarmup_LR": {"last_epoch": 3, "last_lr": 0.5}})
    assert (schedule.last_epoch, schedule()) == (7, 0.1)


def test_an_optimizer_obeys_and_carries_it():
    parameter = paddle.create_parameter([1], "float32", default_initializer=paddle.nn.initializer.Constant(0.0))
    schedule = Piecewise(2, 1, [1], [1.0, 0.25])
    optimizer = paddle.optimizer.SGD(schedule, [parameter])
    for _ in range(2):
        parameter.sum().backward()
        optimizer.step()
        optimizer.clear_grad()
        schedule.step()
    assert parameter.item() == -1.25
    assert optimizer.state_dict()["LR_Scheduler"] == {"last_epoch": 2}


@pytest.mark.parametrize("learning_rate", [None, 0.1])
def test_piecewise_is_silent_when_learning_rate_says_the_same(caplog, learning_rate):
    Piecewise(90, 1, [30, 60], [0.1, 0.01, 0.001], learning_rate=learning_rate)
    assert not caplog.records


def test_piecewise_obeys_its_lists_and_says_that_learning_rate_has_no_effect(caplog):
    with caplog.at_level(logging.WARNING, logger="ppcls"):
        schedule = Piecewise(40, 1, [10], [1.0, 0.5], learning_rate=1.0)
    assert rates(schedule, 40) == [1.0] * 10 + [0.5] * 30
    (record,) = caplog.records
    assert "learning_rate 1.0 has no effect" in record.getMessage()


COMMON = {"epochs": 4, "step_each_epoch": 10, "learning_rate": 0.1}


@pytest.mark.parametrize(
    ("make", "parameters", "message"),
    [
        (ConstLR, {"warmup_epoch": -1}, "warmup_epoch must be 0 or more"),
        (ConstLR, {"warmup_epoch": 0.5, "by_epoch": True}, "warmup_epoch 0.5 must be whole"),
        (ConstLR, {"warmup_epoch": 1, "warmup_start_lr": 0.2}, "warmup_start_lr must be from 0 to the learning rate"),
        (ConstLR, {"learning_rate": -0.1}, "Invalid learning rate"),
        (ConstLR, {"epochs": 0}, "at least one epoch"),
        (Piecewise, {"decay_epochs": [1, 2], "values": [1.0, 0.1]}, "2 decay_epochs need 3 values; got 2"),
        (Piecewise, {"decay_epochs": [2, 1], "values": [1.0, 0.1, 0.01]}, "decay_epochs must rise"),
        (Step, {"step_size": 1, "gamma": 1.0}, "gamma must be between 0 and 1"),
        (Step, {"step_size": 0.01, "gamma": 0.5}, "step_size 0.01 is shorter than one step of 0.1 epochs"),
        (Step, {"step_size": 1.5, "gamma": 0.5, "by_epoch": True}, "step_size 1.5 must be whole"),
        (MultiStepDecay, {"milestones": [2, 2]}, "milestones must rise"),
        (Linear, {"power": 0.0}, "power must be above 0"),
    ],
)
def test_what_cannot_be_obeyed_is_refused(make, parameters, message):
    with pytest.raises(ValueError, match=message):
        make(**{**COMMON, **parameters})


def correction(name: str, parameters: dict[str, Any]) -> str | None:
    """Why the rates of PaddleClas are not wanted for a reference case; ``None`` when they are."""
    warmup, by_epoch = parameters.get("warmup_epoch", 0), parameters.get("by_epoch", False)
    if name == "Constant" and warmup:
        return "PaddleClas ignores the warmup of Constant; here it has no such parameter"
    if name == "Piecewise" and "learning_rate" in parameters:
        return "PaddleClas puts 'a tenth every 30 epochs' in the place of decay_epochs and values"
    if name == "Linear" and by_epoch and warmup:
        return "PaddleClas counts this warmup in iterations, though the schedule is stepped once an epoch"
    return None


def failure(name: str, parameters: dict[str, Any]) -> str | None:
    """For a reference case that PaddleClas fails on: ``refused`` when we do, ``works`` when we do not."""
    fractional_warmup = parameters.get("warmup_epoch", 0) % 1 != 0
    if parameters["by_epoch"]:
        return "refused" if fractional_warmup or parameters.get("step_size", 0) % 1 else None
    return "works" if name in ("Cosine", "Linear") and fractional_warmup else None


# Nothing may slip from one kind into another unseen.
EXPECTED_COUNTS = {
    "Constant": {"agree": 4, "corrected": 12, "refused": 0, "works": 0},
    "ConstLR": {"agree": 14, "corrected": 0, "refused": 2, "works": 0},
    "Piecewise": {"agree": 19, "corrected": 5, "refused": 2, "works": 0},
    "Step": {"agree": 22, "corrected": 0, "refused": 6, "works": 0},
    "MultiStepDecay": {"agree": 18, "corrected": 0, "refused": 2, "works": 0},
    "Cosine": {"agree": 30, "corrected": 0, "refused": 2, "works": 2},
    "Linear": {"agree": 20, "corrected": 8, "refused": 2, "works": 2},
}


@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_paddleclas_except_where_it_is_corrected(name, reference):
    cases = json.loads((reference / "lr" / f"{name}.json").read_text())["cases"]
    counts = {"agree": 0, "corrected": 0, "refused": 0, "works": 0}
    for case in cases:
        parameters = case["params"]
        if "error" in case:
            outcome = failure(name, parameters)
            if outcome == "refused":
                with pytest.raises(ValueError, match="must be whole"):
                    SCHEDULES[name](**parameters)
            else:
                assert outcome == "works", parameters
                SCHEDULES[name](**parameters)
            counts[outcome] += 1
        elif correction(name, parameters):
            counts["corrected"] += 1
        else:
            schedule = SCHEDULES[name](**parameters)
            assert follow(schedule, case) == pytest.approx(case["lr"], rel=1e-9, abs=1e-9), parameters
            counts["agree"] += 1
    assert counts == EXPECTED_COUNTS[name]


def follow(schedule: Schedule, case: dict[str, Any]) -> list[float]:
    """The rates of a case, the schedule stepped as its ``by_epoch`` says."""
    seen = []
    step_each_epoch = case["params"]["step_each_epoch"]
    for iteration in range(len(case["lr"])):
        seen.append(schedule())
        if not schedule.by_epoch or (iteration + 1) % step_each_epoch == 0:
            schedule.step()
    return seen


@pytest.mark.parametrize("warmup_epochs", [0, 2])
def test_exponential_of_mindspore_with_its_warmup(warmup_epochs):
    # lr_scheduler: exponential, lr_epochs: [3, 5], lr_gamma: 0.3 (milestones counted from the first step); its linear
    # warmup is one update ahead of ours, as it begins with lr / steps instead of 0.
    steps = 4
    schedule = MultiStepDecay(
        8, steps, 0.1, milestones=[3, 5], gamma=0.3, warmup_epoch=warmup_epochs, warmup_overlaps=True
    )
    expected = [0.1 * 0.3 ** ((step >= 3 * steps) + (step >= 5 * steps)) for step in range(8 * steps)]
    for step in range(warmup_epochs * steps):
        expected[step] = 0.1 * step / (warmup_epochs * steps)
    assert rates(schedule, 8 * steps) == pytest.approx(expected)


def test_cosine_annealing_of_mindspore():
    # lr_scheduler: cosine_annealing, T_max: 6, eta_min: 0.01: one rate an epoch, whatever the length of the training.
    schedule = Cosine(4, 10, 0.1, eta_min=0.01, T_max=6, by_epoch=True)
    expected = [0.01 + (0.1 - 0.01) * (1 + math.cos(math.pi * epoch / 6)) / 2 for epoch in range(4)]
    assert rates(schedule, 4) == pytest.approx(expected)


def test_cosine_with_an_overlapping_warmup_goes_on_where_it_would_be_without():
    plain = rates(Cosine(6, 5, 0.1, T_max=6), 30)
    overlapping = rates(Cosine(6, 5, 0.1, T_max=6, warmup_epoch=2, warmup_overlaps=True), 30)
    assert overlapping[:11] == pytest.approx([0.1 * step / 10 for step in range(10)] + [plain[10]])
    assert overlapping[10:] == pytest.approx(plain[10:])


@pytest.mark.parametrize("length", [0, -1])
def test_a_cosine_without_length_is_refused(length):
    with pytest.raises(ValueError, match="T_max must be above 0"):
        Cosine(6, 5, 0.1, T_max=length)
