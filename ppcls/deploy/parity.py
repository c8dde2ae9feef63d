# SPDX-License-Identifier: Apache-2.0
"""The proof that an exported model gives the trained answers: every engine, in a fresh process, on real images."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
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
        outputs: what it answered to each case; empty where it does not run.
        description: engine and version, or why it does not run.
        latency: milliseconds for one image, the median of a few.
    """

    outputs: Mapping[str, np.ndarray]
    description: str
    latency: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """One engine's answer to one case, held against the trained model's."""

    engine: str
    case: str
    difference: float
    limit: float
    same_top1: float
    compared: float

    @property
    def agrees(self) -> bool:
        """Whether it may be published."""
        return self.difference <= self.limit and self.same_top1 == 1.0 and self.compared > 0


def prove(
    directory: Path,
    images: Sequence[bytes | np.ndarray],
    logits: Mapping[str, np.ndarray],
    softmax: bool,
    runtimes: Sequence[str] = ("paddle",),
    allowed: Collection[str] = (),
) -> dict[str, Any]:
    """Hold the answers of every engine against the trained model's.

    Args:
        directory: graphs, weights and ``inference.yml``.
        images: a file's bytes, a decoded image (uint8 [H, W, 3]) or, float32, the model's own input [C, H, W].
        logits: what the trained model answers to each case, [N, class_num].
        softmax: the exported graph ends in probabilities.
        runtimes: the engines.
        allowed: engines that may differ; they are marked as unfit.

    Returns:
        The figures for the manifest: common ones, under ``engines`` those of each engine, ``unfit`` and ``fastest``.

    Raises:
        ParityError: an engine does not run, or its answers to a case differ by more than 1e-5 of the largest logit,
            or logarithm of a probability.
    """
    answers = answers_of_fresh_process(directory, images, runtimes)
    engines, unfit, problems = {}, [], []
    for name in runtimes:
        answer = answers[name]
        comparisons = [_compare(name, case, answer.outputs.get(case), logits[case], softmax) for case in logits]
        if not answer.outputs or not all(each.agrees for each in comparisons):
            unfit.append(name)
            if name not in allowed:
                problems.append(_problem(name, answer, comparisons))
            continue
        engines[name] = {
            "largest_difference": max(each.difference for each in comparisons),
            "largest_share_of_limit": round(max(each.difference / each.limit for each in comparisons), 4),
            "compared": round(min(each.compared for each in comparisons), 4),
            "same_top1": 1.0,
            "latency_ms": round(answer.latency, 3),
            "engine": answer.description,
        }
    if problems:
        raise ParityError("\n".join([*problems, "nothing was published"]))
    return {
        "images": len(images),
        "cases": list(logits),
        "largest_logit": max(float(np.abs(each).max()) for each in logits.values()),
        "tolerance": TOLERANCE,
        "engines": engines,
        "unfit": unfit,
        "fastest": sorted(engines, key=lambda name: engines[name]["latency_ms"]),
    }


def answers_of_fresh_process(
    directory: Path, images: Sequence[bytes | np.ndarray], runtimes: Sequence[str]
) -> dict[str, Answers]:
    """The answers of the engines by their names; they share a process, unless it fails."""
    # Images go as they are stored, so that the fresh process preprocesses them by inference.yml, as a user would.
    arrays = [np.frombuffer(image, np.uint8) if isinstance(image, bytes) else image for image in images]
    with tempfile.TemporaryDirectory() as folder:
        request = Path(folder, "request.npz")
        np.savez(request, **{f"image {number}": array for number, array in enumerate(arrays)})
        answers, reason = _ask(directory, request, runtimes)
        if reason and len(runtimes) > 1:
            for runtime in runtimes:  # which of them is it?
                answers.update(_ask(directory, request, [runtime])[0])
    return answers


def _ask(directory: Path, request: Path, runtimes: Sequence[str]) -> tuple[dict[str, Answers], str | None]:
    stored = request.with_name("answers.npz")
    reason = failure_of_module("ppcls.deploy.trial", directory, request, stored, *runtimes)
    if reason:
        return {name: Answers({}, reason) for name in runtimes}, reason
    with np.load(stored, allow_pickle=False) as given:
        answers = {
            name: Answers(
                {key.split("|")[1]: given[key] for key in given.files if key.startswith(f"{name}|")},
                str(given[f"description:{name}"]),
                float(given[f"latency:{name}"]),
            )
            for name in runtimes
        }
    return answers, None


def _compare(name: str, case: str, outputs: np.ndarray | None, logits: np.ndarray, softmax: bool) -> Comparison:
    largest = float(np.abs(logits).max())
    if outputs is None or outputs.shape != logits.shape or not np.isfinite(outputs).all():
        return Comparison(name, case, float("inf"), TOLERANCE * largest, 0.0, 0.0)
    # The logarithm of a probability is its logit less a number that all classes share.
    wanted = _log_softmax(logits) if softmax else logits
    # Paddle's softmax on the CPU cuts probabilities off at exp(-64), below which nothing can be compared.
    comparable = outputs > SMALLEST_PROBABILITY if softmax else np.ones(outputs.shape, bool)
    # Where all logits are small their softmax is not: its logarithm is at least that of the number of classes.
    limit = TOLERANCE * max(largest, float(np.abs(wanted)[comparable].max(initial=0.0)))
    with np.errstate(divide="ignore", invalid="ignore"):
        given = np.log(outputs) if softmax else outputs
    difference = float(np.abs(given - wanted)[comparable].max(initial=0.0))
    same = float((outputs.argmax(1) == logits.argmax(1)).mean())
    return Comparison(name, case, difference, limit, same, float(comparable.mean()))


def _problem(name: str, answer: Answers, comparisons: Sequence[Comparison]) -> str:
    if not answer.outputs:
        return f"{name}: the exported graph does not run in a fresh process ({answer.description})"
    lines = [f"{name}: the exported graph does not answer as the trained model does, in {answer.description}"]
    lines.append(f"  {'case':28} {'difference':>12} {'allowed':>12} {'same first class':>17}")
    for each in comparisons:
        mark = "" if each.agrees else "  <-"
        lines.append(f"  {each.case:28} {each.difference:12.3g} {each.limit:12.3g} {each.same_top1:17.0%}{mark}")
    return "\n".join(lines)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
