# SPDX-License-Identifier: Apache-2.0
"""Before an update: is all finite that the weights would follow from, in every process, and if not, what now."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ppcls.data.loader import Batch
from ppcls.engine.agreement import Agreement
from ppcls.engine.finite import all_finite, names_not_finite
from ppcls.engine.gradients import BatchPlace, Gradients, first_line
from ppcls.engine.non_finite import Examiner, Suspect, told_by_all
from ppcls.engine.statistics import Kept
from ppcls.engine.train_state import TrainState
from ppcls.engine.train_step import StepOutput
from ppcls.utils import dist
from ppcls.utils.errors import NumericsError
from ppcls.utils.logger import logger

OnNonFinite = Literal["stop", "skip", "rollback"]

NOT_FINITE = "something is not finite"
OVERFLOW = "a gradient is not finite"
"""What the processes ask each other before an update."""

ADVICE = "try a smaller learning rate, a warmup or clip_global_norm"


@dataclass(frozen=True)
class NonFinite:
    """What to do about an update whose loss, gradients or statistics are not finite.

    Attributes:
        action: stop; leave the update out; or go back to the newest checkpoint, and leave it out the next time.
        max_updates: as many may be left out in a run; one more stops it.
        roll_back: restores the newest checkpoint; gives None where there is none.
        output_dir: where such batches are written.
        samples: what the data set calls the samples of a batch (from 1) of the present epoch.
    """

    action: OnNonFinite = "stop"
    max_updates: int = 10
    roll_back: Callable[[], TrainState | None] | None = None
    output_dir: Path | None = None
    samples: Callable[[int], list[str]] | None = None


class RolledBack(Exception):
    """An update that is to be forgotten, with everything since the newest checkpoint; says why."""


class Guard:
    """Looks at every batch of an update, and says what becomes of one that is not finite.

    Args:
        gradients: forward and backward.
        agreement: what the processes settle before every update.
        settings: what becomes of it.

    Attributes:
        kept: the statistics as they were before the update.
    """

    def __init__(self, gradients: Gradients, agreement: Agreement, settings: NonFinite) -> None:
        self.gradients = gradients
        self.precision = gradients.precision
        self.statistics = gradients.statistics
        self.agreement = agreement
        self.settings = settings
        self._examiner = Examiner(gradients, settings.output_dir, settings.samples)
        self._suspect: Suspect | None = None
        self._overflow: Suspect | None = None
        self.kept: Kept = []
        agreement.ask(NOT_FINITE, lambda: self._suspect is not None)
        agreement.ask(OVERFLOW, lambda: self._overflow is not None)

    def begin(self) -> None:
        """The next batch is the first of an update."""
        self._suspect = self._overflow = None
        self.kept = self.statistics.copy()

    def look(self, batch: Batch, output: StepOutput, place: BatchPlace, is_last: bool) -> None:
        """Look at what a batch gave; at the last one of an update divide the gradients by the loss scale, too."""
        # Before the last batch, scaled gradients may overflow, which is nothing to worry about.
        if is_last:
            has_overflow = not self.precision.unscale(self.gradients.parameters)
        else:
            has_overflow = self.precision.scaler is None and not all_finite(self.gradients.present())
        loss, what = float(output.loss), ""
        if not math.isfinite(loss):
            what = f"the loss is {loss}"
        elif not self.statistics.are_finite():
            what = "a running statistic is not finite"
        if what and self._suspect is None:
            self._suspect = Suspect(batch, place, what, output, is_own=True)
        if has_overflow and self._overflow is None:
            # With the last batch the gradients of the other processes have come.
            is_own = not is_last or dist.world_size() == 1
            self._overflow = Suspect(batch, place, "a gradient is not finite", output, is_own)

    @property
    def has_overflow(self) -> bool:
        """Whether a gradient is not finite in any process, once they have settled it."""
        return OVERFLOW in self.agreement

    @property
    def is_alarmed(self) -> bool:
        """Whether that is more than a loss scale which is too large, once they have settled it."""
        return NOT_FINITE in self.agreement or (self.has_overflow and not self.precision.forgives_overflow)

    def leave_out(self, place: BatchPlace, state: TrainState) -> None:
        """Say what was not finite, make undone what it has changed, and do what the settings want. All together.

        Args:
            place: of the update.
            state: where the training is; counts it.

        Raises:
            NumericsError: the run is to end.
            RolledBack: it is to go back to a checkpoint.
        """
        suspect = self._first(self._suspect, self._overflow)
        text = told_by_all(self._examiner.told(suspect, state.learning_rate) if suspect else "")
        text = text or f"{place}: a gradient is not finite at learning rate {state.learning_rate:g}"
        self.statistics.restore(self.kept)
        for parameter in self.gradients.parameters:
            parameter.clear_gradient()
        if self.settings.action == "stop":
            raise NumericsError(f"{text}; {ADVICE}, or Global.on_non_finite: skip")
        self._count(text, state)
        if self.settings.action == "rollback":
            raise RolledBack(text)
        logger.warning(
            "%s; the update is left out (%d of at most %d)", text, state.non_finite, self.settings.max_updates
        )

    def require_finite_weights(self, place: BatchPlace, state: TrainState) -> None:
        """Look at what an update has made of the weights; every process holds the same and comes to the same answer.

        Raises:
            NumericsError: they are not finite, and the run is to end.
            RolledBack: it is to go back to a checkpoint.
        """
        if all_finite(self.gradients.parameters):
            return
        names = names_not_finite(dict(self.gradients.model.named_parameters()))
        text = (
            f"{place}: the update at learning rate {state.learning_rate:g} has made weights not finite: {names[0]}"
            + f" and {len(names) - 1} more" * (len(names) > 1)
        )
        if self.settings.action == "rollback":
            self._count(text, state)
            raise RolledBack(text)
        undo = "; an update that is made cannot be skipped, only rolled back" * (self.settings.action == "skip")
        raise NumericsError(f"{text}; {ADVICE}{undo}")

    def _first(self, *suspects: Suspect | None) -> Suspect | None:
        there = [suspect for suspect in suspects if suspect is not None]
        return min(there, key=lambda suspect: suspect.place.batch) if there else None

    def _count(self, text: str, state: TrainState) -> None:
        most = self.settings.max_updates
        if state.non_finite >= most:
            raise NumericsError(f"{text}; Global.max_non_finite allows {most} such updates, and {most} were before")
        state.non_finite += 1


@contextmanager
def paddles_check(place: BatchPlace | str) -> Iterator[None]:
    """Say in the words of this framework what ``FLAGS_check_nan_inf=1`` finds.

    Raises:
        NumericsError: an operator's result is not finite.
    """
    try:
        yield
    except RuntimeError as error:
        if "There are NAN or INF" not in str(error):
            raise
        raise NumericsError(f"{place}: FLAGS_check_nan_inf: {first_line(error)}") from error
