# SPDX-License-Identifier: Apache-2.0
"""The proof that an exported model gives the trained answers: every engine, in a fresh process, on real images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.deploy.process import failure_of_module
from ppcls.utils.errors import ParityError

TOLERANCE = 1e-5
SMALLEST_PROBABILITY = 1e-27


@dataclass(frozen=True)
class Answers:
    """What one engine gave.

    Attributes:
        outputs: for N images N + 2 rows: all in one batch with the first a second time, then the first alone.
        description: engine and version.
    """

    outputs: np.ndarray
    description: str


def prove(directory: Path, images: Sequence[bytes | np.ndarray], logits: np.ndarray, softmax: bool) -> dict[str, Any]:
    """Hold the answers of every engine against the trained model's.

    Args:
        directory: graphs, weights and ``inference.yml``.
        images: a file's bytes, a decoded image (uint8 [H, W, 3]) or, float32, the model's own input [1, C, H, W].
        logits: what the trained model answers, [N, class_num].
        softmax: the exported graph ends in probabilities.

    Returns:
        The figures for ``inference.yml``: common ones, and under ``engines`` those of each engine.

    Raises:
        ParityError: an engine does not run, or its answers differ by more than 1e-5 of the largest logit.
    """
    limit = TOLERANCE * float(np.abs(logits).max())
    rows = logits[[*range(len(logits)), 0, 0]]
    answers = answers_of_fresh_process(directory, images)
    engines = {name: _compare(name, answer, rows, softmax, limit) for name, answer in answers.items()}
    return {
        "images": len(logits),
        "largest_logit": float(np.abs(logits).max()),
        "tolerance": limit,
        "engines": engines,
    }


def answers_of_fresh_process(directory: Path, images: Sequence[bytes | np.ndarray]) -> dict[str, Answers]:
    """The answers of every engine that the directory has a graph for, by the engine's name.

    Raises:
        ParityError: the process fails; gives its reason.
    """
    request = directory / "request.npz"
    stored = directory / "answers.npz"
    # Images go as they are stored, so that the fresh process preprocesses them by inference.yml, as a user would.
    arrays = [np.frombuffer(image, np.uint8) if isinstance(image, bytes) else image for image in images]
    np.savez(request, **{f"image {number}": array for number, array in enumerate(arrays)})
    reason = failure_of_module("ppcls.deploy.trial", directory, request, stored)
    if reason:
        raise ParityError(f"the exported graph does not run in a fresh process ({reason}); nothing was published")
    with np.load(stored, allow_pickle=False) as given:
        names = [name for name in given.files if "." not in name]
        answers = {name: Answers(given[name], str(given[f"{name}.description"])) for name in names}
    request.unlink()
    stored.unlink()
    return answers


def _compare(name: str, answer: Answers, logits: np.ndarray, softmax: bool, limit: float) -> dict[str, Any]:
    outputs = answer.outputs
    if outputs.shape != logits.shape:
        raise ParityError(
            f"{name}: the exported graph answers {list(outputs.shape)} where the trained model answers "
            f"{list(logits.shape)}; nothing was published"
        )
    if not np.isfinite(outputs).all():
        raise ParityError(f"{name}: the exported graph's answers are not finite; nothing was published")
    # The logarithm of a probability is its logit less a number that all classes share.
    wanted = _log_softmax(logits) if softmax else logits
    # Paddle's softmax on the CPU cuts probabilities off at exp(-64), below which nothing can be compared.
    comparable = outputs > SMALLEST_PROBABILITY if softmax else np.ones(outputs.shape, bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        given = np.log(outputs) if softmax else outputs
    difference = float(np.abs(given - wanted)[comparable].max(initial=0.0))
    agreement = float((outputs.argmax(1) == logits.argmax(1)).mean())
    if not (difference <= limit and agreement == 1.0 and comparable.any(axis=1).all()):
        raise ParityError(
            f"{name}: the exported graph differs from the trained model by {difference:.3g} (allowed {limit:.3g}), "
            f"same first class for {agreement:.0%} of the answers; nothing was published"
        )
    return {
        "largest_difference": difference,
        "compared": round(float(comparable.mean()), 4),
        "same_top1": agreement,
        "engine": answer.description,
    }


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
