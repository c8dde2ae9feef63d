# SPDX-License-Identifier: Apache-2.0
"""The graph of a bundle with its engine, asked for logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ppcls.deploy.bundle import AUTO, Bundle
from ppcls.deploy.runtime import Predictor
from ppcls.utils.errors import DataError, StorageError

SMALLEST = np.finfo(np.float32).tiny


class DeployedGraph:
    """A batch of the graph's input to logits [N, class_num].

    Args:
        bundle: verified.
        runtime: the engine; ``auto`` is the one that was fastest at the export, as far as it is installed.
        device: where the engine runs.
        threads: of the CPU; by default one for each core that this process may use.

    Attributes:
        runtime: the engine's name.
        description: engine and version.

    Raises:
        ConfigError: the engine, its graph, or the device is not there.
        ParityError: the engine is known not to answer as the trained model does.
        StorageError: the engine cannot load the graph.
    """

    def __init__(self, bundle: Bundle, runtime: str = AUTO, device: str = "cpu", threads: int | None = None) -> None:
        self.bundle = bundle
        self.runtime = bundle.runtime(runtime)
        self.predictor = Predictor(bundle.directory, self.runtime, device, threads)
        self.description = self.predictor.description
        self._taken: tuple[tuple[int, ...], np.dtype] | None = None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Logits; of a graph that ends in softmax the logarithm of its probabilities, which have the same softmax.

        Raises:
            DataError: the images are of another shape or type than the graph's.
            StorageError: the graph answers with another number of classes than the bundle says.
        """
        outputs = self.outputs(images)
        # Engines cut tiny probabilities off to 0, whose logarithm no loss could take.
        return np.log(np.maximum(outputs, SMALLEST)) if self.bundle.graph.softmax else outputs

    def answered_by(self, postprocess: Any) -> tuple[Callable, Callable]:
        """What to ask for a batch, and what makes results of it: probabilities where both have them, else logits."""
        if self.bundle.graph.softmax and hasattr(postprocess, "of_probs"):
            return self.outputs, postprocess.of_probs
        return self, postprocess

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """What the graph ends in, probabilities or logits; raises what calling this raises."""
        graph = self.bundle.graph
        kind = images.shape[1:], images.dtype
        if kind != self._taken:  # mostly they are as those before them
            if not graph.takes(images[0]):
                raise DataError(
                    f"{self.bundle.directory}: takes {graph.dtype} images of {list(graph.image_shape)}, and its "
                    f"preprocessing makes {images.dtype} {list(images.shape[1:])} of these"
                )
            self._taken = kind
        outputs = self.predictor(images)
        if outputs.shape != (len(images), graph.class_num):
            raise StorageError(
                f"{self.bundle.directory}: answers {list(outputs.shape)} to {len(images)} images, not "
                f"{graph.class_num} numbers for each; export it again"
            )
        return outputs
