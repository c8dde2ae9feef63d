# SPDX-License-Identifier: Apache-2.0
"""An export in whole numbers: calibrated on images of the training set, judged on all of the evaluation."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.config import RunConfig
from ppcls.config.registry import EVALUATORS
from ppcls.data.images import transform_image
from ppcls.deploy.bundle import Bundle, read_bundle
from ppcls.deploy.graph import DeployedGraph
from ppcls.deploy.int8 import NUM_IMAGES, judge, require_int8, write_int8
from ppcls.deploy.latency import latencies
from ppcls.engine.deployed import DeployedModel, DeployedParts
from ppcls.engine.sample_images import spread
from ppcls.metric import CombinedMetric
from ppcls.metric.topk import TopkAcc
from ppcls.utils.errors import ConfigError, DataError
from ppcls.utils.logger import logger

RUNTIMES = ("onnxruntime", "int8")
"""Before and after."""


class UnpublishedParts(DeployedParts):
    """`DeployedParts` of a bundle that is still being made.

    Args:
        config: the experiment.
        graph: what is there so far, in one of its engines.
    """

    def __init__(self, config: RunConfig, graph: DeployedGraph) -> None:
        super().__init__(config)
        vars(self)["graph"] = graph

    def figures(self, graph: DeployedGraph) -> dict[str, float]:
        """How many images of ``DataLoader.Eval`` a graph answers rightly."""
        metric = CombinedMetric([TopkAcc(sorted({1, min(5, self.bundle.graph.class_num)}))])
        return EVALUATORS[self.settings.eval_mode](DeployedModel(graph), self.eval_loader, None, metric, None)


def add_int8(config: RunConfig, directory: Path) -> dict[str, Any]:
    """Add ``model_int8.onnx`` to a bundle that is being made; gives what its manifest says of it.

    Raises:
        ConfigError: there are no training images to calibrate on, or no evaluation to judge by.
        DataError: none of the training images can be read.
        ParityError: the graph cannot be quantized, or top-1 falls by more than half a point.
    """
    images = calibration_images(config, read_bundle(directory))
    logger.info("int8     taking the ranges of activations from %d training images", len(images))
    write_int8(directory, images)
    logger.info("int8     evaluating it, and the graph in float32, on all of DataLoader.Eval")
    bundle = replace(read_bundle(directory), files=frozenset(path.name for path in directory.iterdir()))
    graphs = {runtime: DeployedGraph(bundle, runtime) for runtime in RUNTIMES}
    with closing(UnpublishedParts(config, graphs[RUNTIMES[0]])) as parts:
        figures = {runtime: parts.figures(graph) for runtime, graph in graphs.items()}
    before, after = (figures[runtime] for runtime in RUNTIMES)
    judge(before, after, config.Global.allow_int8_loss)
    milliseconds = latencies({runtime: graph.predictor for runtime, graph in graphs.items()}, images[0])
    logger.info(
        "int8     %d of %d images of the evaluation right, in float32 %d; %.2f ms an image, in float32 %.2f",
        *(after["top1_correct"], after["num_samples"], before["top1_correct"]),
        *(milliseconds["int8"], milliseconds["onnxruntime"]),
    )
    return {"int8": {"calibrated_on": len(images), "before": before, "after": after, "latency_ms": milliseconds}}


def require(config: RunConfig) -> None:
    """Make sure that there is what int8 needs, before anything is done.

    Raises:
        ConfigError: a package or a section is missing.
    """
    require_int8()
    for name, settings, what in (
        ("Train", config.DataLoader.Train, "int8 takes the ranges of activations from its images"),
        ("Eval", config.DataLoader.Eval, "int8 is judged by its images"),
    ):
        if settings is None:
            raise ConfigError(f"DataLoader.{name}: the section is missing; {what}")


def calibration_images(config: RunConfig, bundle: Bundle) -> list[np.ndarray]:
    """Images spread over the training set, preprocessed as the bundle does it; bad ones are left out.

    Raises:
        DataError: none of them can be read.
    """
    assert config.DataLoader.Train is not None
    dataset = config.DataLoader.Train.dataset.source()
    transforms = bundle.build_transforms()
    images, problems = [], []
    indices = spread(len(dataset), NUM_IMAGES)
    for index in indices:
        try:
            image, _ = dataset.read(index)
            images.append(transform_image(image, transforms, dataset.where(index), bundle.graph.dtype))
        except DataError as error:
            problems.append(error)
    if problems:
        counts = len(problems), len(indices)
        logger.warning("int8     %d of %d images are left out of the calibration: %s", *counts, problems[0])
    if not images:
        raise DataError(f"{problems[0]}; int8 needs images of the training set to take ranges from")
    return images
