# SPDX-License-Identifier: Apache-2.0
"""The model that answers: a bundle that was read whole, has been tried, and is known by its sha256."""

from __future__ import annotations

import os
from typing import Any

import cv2
import numpy as np

from ppcls.deploy.classifier import Classifier
from ppcls.utils.errors import DataError, StorageError

TRIAL_SIZE = 512
"""Height and width of the image that is put through the preprocessing; larger than what recipes cut out."""


class ServedModel:
    """A bundle that is ready to answer.

    Args:
        directory: the bundle.
        runtime: the engine, or ``auto``.
        device: where it runs.
        threads: of the CPU.
        max_batch: the largest batch that it will be asked.

    Attributes:
        sha256: of its manifest, which has the sha256 of every other file.

    Raises:
        StorageError: the bundle is not there, cut off or altered, or does not answer as it says.
        ConfigError: its description cannot be obeyed, or the engine is not there.
        ParityError: the engine is known not to answer as the trained model does.
        NumericsError: an answer is not finite.
    """

    def __init__(
        self, directory: str | os.PathLike, runtime: str, device: str, threads: int | None, max_batch: int
    ) -> None:
        self.classifier = Classifier(directory, runtime, device, threads)
        self.sha256 = self.classifier.bundle.sha256
        self.prepare, self.answer = self.classifier.prepare, self.classifier.answer
        self._try_out(max_batch)

    def _try_out(self, max_batch: int) -> None:
        """Answer an image of noise, alone and in the largest batch."""
        directory, image = self.classifier.bundle.directory, self._noise()
        for size in {1, max_batch}:
            names = [f"{directory}: image {number} of noise" for number in range(size)]
            self.answer(np.stack([image] * size), names)

    def _noise(self) -> np.ndarray:
        """An image through the preprocessing: a large one, or one of the graph's own size where nothing resizes it."""
        graph, reason = self.classifier.bundle.graph, ""
        rng = np.random.Generator(np.random.Philox(0))
        for height, width in ((TRIAL_SIZE, TRIAL_SIZE), graph.image_shape[1:]):
            if height > 0:
                file = cv2.imencode(".png", rng.integers(0, 256, [height, width, 3], np.uint8))[1].tobytes()
                try:
                    image = self.prepare(file, "an image of noise")
                except DataError as error:
                    reason = str(error)
                else:
                    if graph.takes(image):
                        return image
                    reason = f"it makes {image.dtype} {list(image.shape)} for a graph of {list(graph.image_shape)}"
        raise StorageError(f"{self.classifier.bundle.directory}: its preprocessing does not suit its graph: {reason}")

    def metadata(self) -> dict[str, Any]:
        """What a client may know of the model."""
        bundle = self.classifier.bundle
        graph, about = bundle.graph, bundle.about
        names = bundle.labels or graph.class_names
        return {
            "model": graph.model_name,
            "bundle_sha256": self.sha256,
            "engine": self.classifier.description,
            "input": {"shape": list(graph.image_shape), "dtype": graph.dtype},
            "class_num": graph.class_num,
            "classes": list(names) if names else None,
            "parity": about.get("parity"),
            "versions": about.get("versions"),
        }
