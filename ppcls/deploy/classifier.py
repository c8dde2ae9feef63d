# SPDX-License-Identifier: Apache-2.0
"""From image files to answers with nothing but a published bundle; no training code, and Paddle only where it runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from ppcls.data.images import transform_image
from ppcls.data.level_table import with_table
from ppcls.deploy.answers import answer_batch, answers
from ppcls.deploy.bundle import AUTO, load_bundle
from ppcls.deploy.graph import DeployedGraph
from ppcls.deploy.whole import read_whole
from ppcls.utils.errors import ConfigError


class Classifier:
    """A deployed model with its own preprocessing, postprocessing and labels.

    From its making on, OpenCV computes with one thread in this process: the threads of both wait busily for their next
    work, so that they take the cores from each other; scaling an image with two threads costs a model 5 % of its time.

    Args:
        directory: the bundle, verified before anything in it is used.
        runtime: the engine: ``paddle``, ``paddle_onednn``, ``onnxruntime``, ``int8`` or ``tensorrt``; ``auto`` is the
            one that was fastest at the export, as far as it is installed.
        device: where the engine runs: ``cpu``, ``gpu``, ``gpu:1``, ...
        threads: of the CPU; by default one for each core that this process may use.

    Attributes:
        bundle: what the directory says of itself.
        description: engine and version.

    Raises:
        StorageError: the bundle is not there, cut off or altered.
        ConfigError: its description cannot be obeyed, or the engine is not there.
        ParityError: the engine is known not to answer as the trained model does.
    """

    def __init__(
        self, directory: str | os.PathLike, runtime: str = AUTO, device: str = "cpu", threads: int | None = None
    ) -> None:
        self.graph = read_whole(directory, lambda: DeployedGraph(load_bundle(directory), runtime, device, threads))
        self.bundle = self.graph.bundle
        self.transforms = with_table(self.bundle.build_transforms())
        self.postprocess = self.bundle.build_postprocess()
        self.description = self.graph.description
        cv2.setNumThreads(0)
        self._ask, self._results = self.graph.answered_by(self.postprocess)

    def __call__(self, paths: Sequence[str], batch_size: int = 1) -> Iterator[dict[str, Any]]:
        """One result for each path, in order; an image that cannot be read gives its ``error``.

        Raises:
            NumericsError: an answer is not finite.
            ConfigError: ``paths`` is a single one, or ``batch_size`` is below 1.
        """
        if isinstance(paths, (str, os.PathLike)):
            raise ConfigError(f"paths: expected a list of paths; got {os.fspath(paths)!r} alone")
        if batch_size < 1:
            raise ConfigError(f"batch_size: expected 1 or more; got {batch_size}")
        return answers(self._ask, paths, self.transforms, self._results, batch_size, self.bundle.graph.dtype)

    def prepare(self, image: bytes, name: str) -> np.ndarray:
        """The model's input for the bytes of one image file; may be called from several threads.

        Raises:
            DataError: it is no image, or does not suit the model.
        """
        return transform_image(image, self.transforms, name, self.bundle.graph.dtype)

    def answer(self, images: np.ndarray, names: list[str]) -> list[dict[str, Any]]:
        """One result for each image of a batch that `prepare` has made, all of one shape.

        Raises:
            NumericsError: an answer is not finite.
        """
        return answer_batch(self._ask, images, self._results, names)
