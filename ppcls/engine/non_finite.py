# SPDX-License-Identifier: Apache-2.0
"""What a process can say of a batch whose loss, gradients or statistics are not finite: which layer, which images."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn
from safetensors.numpy import save

from ppcls.data.loader import Batch
from ppcls.engine.finite import names_not_finite
from ppcls.engine.first_bad_layer import bad_rows, first_bad_layer
from ppcls.engine.gradients import BatchPlace, Gradients
from ppcls.engine.pieces import is_out_of_memory
from ppcls.engine.train_step import StepOutput
from ppcls.utils import dist
from ppcls.utils.logger import logger

FOLDER = "non_finite"
"""Of the output directory: what was written of such batches."""

MAX_FOLDERS = 10
"""Batches that are written in a run, by each process."""
MAX_BYTES = 64 * 2**20
"""Of the images of a batch, the bad ones first."""
MAX_NAMES = 20
"""Of tensors and images in a report."""
_SHOWN = 3


@dataclass
class Suspect:
    """A batch of this process that gave what is not finite.

    Attributes:
        batch: images and labels.
        place: where it stands in the training.
        what: what was not finite, such as "the loss is nan".
        output: what it gave.
        is_own: whether it is surely this process's; what has come with the gradients may be another's.
    """

    batch: Batch
    place: BatchPlace
    what: str
    output: StepOutput
    is_own: bool


class Examiner:
    """Computes a suspect once more, finds where it begins to be not finite, and writes it all down.

    Args:
        gradients: forward and backward.
        output_dir: where the folder ``non_finite`` goes; None to write nothing.
        samples: which samples a batch (from 1) of the present epoch has: of each what the data set calls it.
    """

    def __init__(
        self,
        gradients: Gradients,
        output_dir: Path | None = None,
        samples: Callable[[int], list[str]] | None = None,
    ) -> None:
        self.gradients = gradients
        self.output_dir = output_dir
        self.samples = samples
        model = gradients.model
        self.model: nn.Layer = model._layers if isinstance(model, paddle.DataParallel) else model

    def told(self, suspect: Suspect, learning_rate: float) -> str:
        """Return in a line what is the matter with a suspect; empty if nothing is that began in this process.

        Gradients and statistics are not what they were afterwards.
        """
        report = self._examined(suspect, self.gradients.is_alone)
        first = report["first_not_finite"]
        if not first and not suspect.is_own:
            return ""
        text = f"{suspect.place}: {suspect.what} at learning rate {learning_rate:g}"
        if first:
            text += f"; first not finite: {first}{self._shown_images(report)}"
        folder = self._written(suspect, {**report, "learning_rate": learning_rate, "what": suspect.what})
        return f"{text}; see {folder}" if folder else text

    def _examined(self, suspect: Suspect, may_compute: bool) -> dict[str, Any]:
        images, labels = suspect.batch
        bad_images = bad_rows(images, len(labels)) if images.is_floating_point() else []
        parts: dict[str, float] = {}
        layer = None
        parameters = {name: each for name, each in self.model.named_parameters() if not each.stop_gradient}
        weights = names_not_finite(parameters)
        before = names_not_finite({name: each.grad for name, each in parameters.items()}) if suspect.is_own else []
        for parameter in parameters.values():
            parameter.clear_gradient()
        try:
            if may_compute:
                with first_bad_layer(self.model) as layer:
                    output = self.gradients.once(suspect.batch, suspect.place, is_last=False)
                parts = {name: float(value) for name, value in output.parts.items()}
        except (MemoryError, RuntimeError, OSError) as error:
            if not is_out_of_memory(error):
                raise
            logger.warning("%s: cannot be computed once more: %s", suspect.place, error)
        loss = [name for name, value in parts.items() if not np.isfinite(value)]
        gradients = names_not_finite({name: each.grad for name, each in parameters.items()}) or before
        statistics = self.gradients.statistics.names_not_finite()
        candidates = [
            f"the weights {_listed(weights)}" if weights else "",
            "the input" if bad_images else "",
            f"{layer.forward} (output)" if layer and layer.forward else "",
            f"the loss {_listed(loss)}" if loss else "",
            f"{layer.backward} (gradient of its output)" if layer and layer.backward else "",
            f"the gradient of {_listed(gradients)}" if gradients else "",
            f"the statistics {_listed(statistics)}" if statistics else "",
        ]
        return {
            "first_not_finite": next(filter(None, candidates), ""),
            "images": bad_images or (layer.images if layer and layer.forward else []),
            "samples": self._samples(suspect),
            "labels": labels.numpy().tolist(),
            "parts": {name: float(value) for name, value in suspect.output.parts.items()},
            "parts_once_more": parts,
            "weights": weights[:MAX_NAMES],
            "gradients": gradients[:MAX_NAMES],
            "statistics": statistics[:MAX_NAMES],
        }

    def _samples(self, suspect: Suspect) -> list[str]:
        return self.samples(suspect.place.batch) if self.samples else []

    def _shown_images(self, report: dict[str, Any]) -> str:
        numbers, samples = report["images"], report["samples"]
        if not numbers:
            return ""
        if len(numbers) == len(report["labels"]) > 1:
            return ", in every image"
        names = [samples[number] if number < len(samples) else f"number {number}" for number in numbers]
        return f", image{'s' * (len(names) > 1)} {_listed(names)}"

    def _written(self, suspect: Suspect, report: dict[str, Any]) -> Path | None:
        if self.output_dir is None:
            return None
        place, rank = suspect.place, dist.rank()
        top = self.output_dir / FOLDER
        folder = top / (f"epoch_{place.epoch}_batch_{place.batch}" + (f"_rank_{rank}" if rank else ""))
        try:
            if not folder.exists() and len(list(top.glob("epoch_*"))) >= MAX_FOLDERS * dist.world_size():
                return None
            folder.mkdir(parents=True, exist_ok=True)
            bad = report["images"]
            (folder / "batch.safetensors").write_bytes(save(_chosen(suspect.batch, bad)))
            shown = {"epoch": place.epoch, "batch": place.batch, "process": rank, **report}
            (folder / "report.json").write_text(json.dumps(_without_nan(shown), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            # What went wrong with the numbers is the message; this comes second.
            logger.warning("%s: the batch cannot be written (%s)", folder, error.strerror)
            return None
        return folder


def told_by_all(own: str) -> str:
    """Return what all processes together have to say; each waits for the others.

    Args:
        own: of this process; empty for nothing.
    """
    told = dist.gathered(own)
    if len(told) == 1:
        return told[0]
    return "; ".join(f"process {rank}: {text}" for rank, text in enumerate(told) if text)


def _chosen(batch: Batch, bad: list[int]) -> dict[str, np.ndarray]:
    """As many images as may be written, with their numbers and labels; the bad ones first."""
    images, labels = batch
    order = [*bad, *sorted(set(range(len(labels))) - set(bad))]
    bytes_per_image = max(images.size * images.element_size() // len(labels), 1)
    numbers = np.array(order[: max(MAX_BYTES // bytes_per_image, 1)], np.int64)
    picked = paddle.to_tensor(numbers)
    return {
        "images": np.ascontiguousarray(images[picked].astype("float32").numpy()),
        "labels": np.ascontiguousarray(labels[picked].numpy()),
        "numbers": numbers,
    }


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _without_nan(value: Any) -> Any:
    """JSON has no word for what this is about."""
    if isinstance(value, dict):
        return {name: _without_nan(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value
