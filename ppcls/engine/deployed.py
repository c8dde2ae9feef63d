# SPDX-License-Identifier: Apache-2.0
"""The parts of an experiment whose model is an exported one: its graph, its preprocessing, its labels."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import paddle
from paddle import nn

from ppcls.config.registry import EVALUATORS, Call
from ppcls.config.schema import DatasetSettings
from ppcls.data.loader import Loader
from ppcls.data.transforms.tensor import NormalizeImage, ToCHWImage
from ppcls.data.transforms.transform import Transform
from ppcls.deploy.answers import answers
from ppcls.deploy.bundle import LABEL_ARGUMENTS, Bundle, load_bundle
from ppcls.deploy.graph import DeployedGraph
from ppcls.deploy.whole import read_whole
from ppcls.engine.parts import Parts
from ppcls.utils.errors import ConfigError, StorageError
from ppcls.utils.logger import logger


class DeployedModel(nn.Layer):
    """An exported model with the face of a trained one: images [N, C, H, W] to logits [N, class_num].

    Args:
        graph: the exported model in its engine.
    """

    def __init__(self, graph: DeployedGraph) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        """Logits; raises as `DeployedGraph` does."""
        batch = images.numpy()
        if self.graph.bundle.graph.dtype == "uint8":  # [N, H, W, C]; a data set moves the axes, whatever the type
            batch = np.ascontiguousarray(batch.transpose(0, 2, 3, 1))
        return paddle.to_tensor(self.graph(batch))


class DeployedParts(Parts):
    """`Parts` with the exported model of ``Global.bundle`` in place of ``Arch``."""

    @functools.cached_property
    def graph(self) -> DeployedGraph:
        """The exported model, verified, in its engine.

        Raises:
            StorageError: it is not there, cut off or altered.
            ConfigError: its description cannot be obeyed, or the engine is not there.
            ParityError: the engine is known not to answer as the trained model does.
        """
        directory = self.settings.bundle
        assert directory is not None
        if not paddle.get_device().startswith("cpu"):
            logger.warning("Global.device is %s, but an exported model runs on the CPU", paddle.get_device())
        try:
            return read_whole(directory, lambda: DeployedGraph(load_bundle(directory), self.settings.runtime))
        except StorageError as error:
            raise StorageError(f"Global.bundle: {error}") from error

    @property
    def bundle(self) -> Bundle:
        """What the exported model says of itself."""
        return self.graph.bundle

    @functools.cached_property
    def model(self) -> DeployedModel:
        """The exported model."""
        engine = self.graph.description
        logger.info("bundle   %s, %s in %s", self.bundle.directory, self.bundle.graph.model_name, engine)
        return DeployedModel(self.graph)

    @functools.cached_property
    def class_names(self) -> list[str] | None:
        """The names of the classes by number, if the bundle has them."""
        return self.bundle.graph.class_names

    @functools.cached_property
    def eval_loader(self) -> Loader:
        """Evaluation batches of this process with the bundle's own preprocessing.

        Raises:
            ConfigError: the bundle tells another number of classes apart than ``Arch``.
        """
        graph = self.bundle.graph
        if self.class_num is not None and graph.class_num != self.class_num:
            raise ConfigError(
                f"Global.bundle: {self.bundle.directory} tells {graph.class_num} classes apart, but Arch.class_num is "
                f"{self.class_num}; name the bundle that was exported with this file"
            )
        settings = self.config.DataLoader.Eval
        if settings is not None:
            source = settings.dataset.source
            own = source.kwargs.get("transform_ops") or []
            self._warn_of_difference("DataLoader.Eval.dataset.transform_ops", own, self.bundle.transforms)
            arguments = {**source.kwargs, "transform_ops": list(self.bundle.transforms)}
            settings = replace(settings, dataset=DatasetSettings(replace(source, kwargs=arguments)))
        return self._loader(settings, "Eval", is_train=False, dtype=graph.dtype)

    @functools.cached_property
    def transforms(self) -> list[Any]:
        """The bundle's own preprocessing."""
        if self.config.Infer is not None:
            self._warn_of_difference("Infer.transforms", self.config.Infer.transforms, self.bundle.transforms)
        return self.bundle.build_transforms()

    @functools.cached_property
    def postprocess(self) -> Any:
        """The bundle's own postprocessing and labels."""
        own, used = self.infer.PostProcess, self.bundle.postprocess
        if (own.target, _settings_of(own)) != (used.target, _settings_of(used)):
            logger.warning(
                "Infer.PostProcess is %s; the bundle's own is used: %s",
                *(f"{call.name}({_settings_of(call)})" for call in (own, used)),
            )
        return self.bundle.build_postprocess()

    def evaluate(self) -> dict[str, float]:
        """The figures of the exported model on ``DataLoader.Eval``."""
        if self.config.AMP is not None and self.config.AMP.use_amp:
            logger.warning("AMP has no effect on an exported model, which computes in float32")
        return EVALUATORS[self.settings.eval_mode](self.model, self.eval_loader, self.eval_loss, self.eval_metric, None)

    def answers(self, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
        """What the bundle makes of images."""
        ask, results = self.model.graph.answered_by(self.postprocess)
        return answers(ask, paths, self.transforms, results, self.infer.batch_size, self.bundle.graph.dtype)

    def _warn_of_difference(self, key: str, own: Sequence[Call], used: Sequence[Call]) -> None:
        # What became part of the graph is left out of the bundle's operations.
        folded = [call for call in own if self.bundle.graph.dtype == "uint8" and call.target is NormalizeImage]
        ours, theirs = _described([call for call in own if call not in folded]), _described(used)
        if ours != theirs:
            logger.warning(
                "%s is %s; the bundle's own preprocessing is used: %s", key, ", ".join(ours), ", ".join(theirs)
            )


def _settings_of(postprocess: Call) -> dict[str, Any]:
    """Its arguments but for those that say where labels are; a bundle brings them along."""
    return {key: value for key, value in postprocess.kwargs.items() if key not in LABEL_ARGUMENTS}


def _described(calls: Sequence[Call]) -> list[str]:
    """The operations as text; moving axes is left out, as data sets do it by themselves."""
    parts = [(call, call()) for call in calls if call.target is not ToCHWImage]
    return [repr(part) if isinstance(part, Transform) else f"{call.name}({call.kwargs})" for call, part in parts]
