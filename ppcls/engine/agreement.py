# SPDX-License-Identifier: Apache-2.0
"""What the processes of a run tell each other at every update: yes or no to a few questions, in one message."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ppcls.utils import dist


class Agreement:
    """Questions that every process answers for itself, and that are answered yes as soon as one process says so.

    A signal, or a gradient that is not finite, reaches one process; all have to act on it at the same update, or
    they wait for each other forever. Every process asks the same questions in the same order.
    """

    def __init__(self) -> None:
        self._questions: dict[str, Callable[[], bool]] = {}
        self._answers: dict[str, bool] = {}

    def ask(self, question: str, own_answer: Callable[[], bool]) -> None:
        """Add a question; ``own_answer`` is what this process says to it whenever they settle."""
        self._questions[question] = own_answer
        self._answers[question] = False

    def settle(self) -> None:
        """Answer all questions together. Waits for the other processes."""
        own = np.array([answer() for answer in self._questions.values()], np.int64)
        together = dist.sum_over_ranks(own) if len(own) else own
        self._answers = {question: bool(number) for question, number in zip(self._questions, together)}

    def __contains__(self, question: str) -> bool:
        """Whether any process said yes to it when they last settled."""
        return self._answers[question]
