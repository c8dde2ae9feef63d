# SPDX-License-Identifier: Apache-2.0
"""Where a training is: all that changes while it runs, but for tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class TrainState:
    """Where a training is.

    Attributes:
        epoch: the epoch that runs or has just ended, from 1; 0 before the first.
        batch: batches of this epoch that are done; 0 once the epoch is.
        step: optimizer updates since the beginning of the training, those that overflowed included.
        metrics: figures of the last evaluation.
        best: the best main metric so far, and the epoch it is from.
        learning_rate: the rate of the last update.
        reader_seconds: what the last batch was waited for.
        batch_seconds: what the last batch took in all.
        scaling: figures of loss scaling; empty without it.
        sums: what each process had summed up for the log when it was last saved in the middle of an epoch.
        non_finite: updates so far that were left out, or rolled back, because something was not finite.
        left_out: the updates, from 1, that a rollback has led past: they are left out when they come again.
        pieces: the pieces that batches are computed in since memory ran out; empty before that.
        stop: set by a callback to end after this batch.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    best_epoch: int = 0
    learning_rate: float = 0.0
    reader_seconds: float = 0.0
    batch_seconds: float = 0.0
    scaling: dict[str, float] = field(default_factory=dict)
    sums: list[dict[str, Any]] = field(default_factory=list)
    non_finite: int = 0
    left_out: list[int] = field(default_factory=list)
    pieces: dict[str, Any] = field(default_factory=dict)
    stop: bool = False

    @property
    def epochs_done(self) -> int:
        """Epochs that have ended."""
        return self.epoch - 1 if self.batch else self.epoch
