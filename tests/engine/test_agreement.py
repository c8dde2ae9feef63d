# SPDX-License-Identifier: Apache-2.0
"""Yes of one process is yes of all."""

import numpy as np
import pytest

from ppcls.engine.agreement import Agreement


@pytest.fixture
def agreement():
    agreement = Agreement()
    agreement.ask("stop", lambda: False)
    agreement.ask("save", lambda: True)
    return agreement


def test_nothing_is_answered_before_they_settle(agreement):
    assert "stop" not in agreement
    assert "save" not in agreement


def test_one_process_agrees_with_itself(agreement):
    agreement.settle()
    assert "stop" not in agreement
    assert "save" in agreement


def test_yes_of_another_process_is_yes(agreement, monkeypatch):
    others = np.array([2, 0], np.int64)
    monkeypatch.setattr("ppcls.utils.dist.sum_over_ranks", lambda own: own + others)
    agreement.settle()
    assert "stop" in agreement
    assert "save" in agreement


def test_each_settling_asks_anew():
    answers = iter([True, False])
    agreement = Agreement()
    agreement.ask("stop", lambda: next(answers))
    agreement.settle()
    assert "stop" in agreement
    agreement.settle()
    assert "stop" not in agreement


def test_a_question_that_nobody_asked_is_an_error(agreement):
    with pytest.raises(KeyError):
        _ = "Stop" in agreement
