# SPDX-License-Identifier: Apache-2.0
"""The parts of one experiment that every verb may use, each built from its section when it is first asked for."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from ppcls.arch.output import logits_of
from ppcls.arch.pretrained import LoadReport, load_weights, read_weights
from ppcls.config import RunConfig
from ppcls.config.annotation import parameters_of
from ppcls.config.registry import EVALUATORS, Call
from ppcls.config.schema import InferSettings, LoaderSettings
from ppcls.data.loader import Loader
from ppcls.data.pipeline import require_order
from ppcls.deploy.answers import answers
from ppcls.engine.blame import blamed_on
from ppcls.engine.ema import ModelEMA
from ppcls.engine.guard import paddles_check
from ppcls.engine.loaders import build_loader
from ppcls.engine.loss_scale import LossScaler
from ppcls.engine.precision import Precision
from ppcls.engine.run_directory import stored_class_names
from ppcls.engine.signals import Watched
from ppcls.loss import CombinedLoss, build_loss
from ppcls.metric import CombinedMetric
from ppcls.utils import dist
from ppcls.utils.download import without_secrets
from ppcls.utils.errors import ConfigError
from ppcls.utils.logger import logger
from ppcls.utils.seed import seed_everything


class Parts:
    """A lazy list of parts: what a verb does not use is never built, so no mode flag exists.

    Args:
        config: what `ppcls.config.load_config` returned.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.settings = config.Global
        self.output_dir = Path(config.Global.output_dir)
        self.class_num: int = argument_of(config.Arch.model, "class_num")
        self.loaded: LoadReport | None = None

    @functools.cached_property
    def eval_loader(self) -> Loader:
        """Evaluation batches of this process, their labels checked."""
        return self._loader(self.config.DataLoader.Eval, "Eval", is_train=False)

    @functools.cached_property
    def model(self) -> nn.Layer:
        """The architecture, filled with ``Arch.pretrained`` or ``Global.pretrained_model``.

        Raises:
            ConfigError: it refuses its settings, or statistics cannot be shared here.
            StorageError: the weights cannot be read.
        """
        seed_everything(self.settings.seed)
        with blamed_on(self.config.Arch.model, "Arch"):
            model = self.config.Arch.model()
        if self.config.Arch.use_sync_bn and dist.world_size() > 1:
            if paddle.get_device() == "cpu":
                raise ConfigError("Arch.use_sync_bn: Paddle shares batch statistics on GPUs only; remove it on a CPU")
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        if source := self.settings.pretrained_model:
            self.loaded = load_weights(model, read_weights(source), without_secrets(source))
            logger.info("%s", self.loaded)
        return model

    @functools.cached_property
    def transforms(self) -> list[Any]:
        """From a single image file to the model's input."""
        with blamed_on(self.config.call, "Infer.transforms"):
            transforms = [call() for call in self.infer.transforms]
            require_order(transforms)
        return transforms

    @functools.cached_property
    def postprocess(self) -> Any:
        """From logits to an answer; without names of its own it takes those that are saved with the weights."""
        postprocess = self.infer.PostProcess()
        if self.class_names and getattr(postprocess, "class_id_map_file", "none to give") is None:
            nameless = [str(index) for index in range(len(self.class_names), self.class_num or 0)]
            postprocess.labels = dict(enumerate(self.class_names + nameless))
        return postprocess

    @functools.cached_property
    def class_names(self) -> list[str] | None:
        """The names of the classes by number, if the weights were saved with them."""
        built_in = argument_of(self.config.Arch.model, "pretrained")
        return stored_class_names(self.settings.pretrained_model or (built_in if isinstance(built_in, str) else None))

    @functools.cached_property
    def eval_loss(self) -> CombinedLoss | None:
        """What evaluation reports beside its metrics.

        Raises:
            ConfigError: its settings are refused, or it is no mean.
        """
        items = self.config.Loss.Eval if self.config.Loss else None
        with blamed_on(self.config.call, "Loss.Eval"):
            loss = None if items is None else build_loss(items)
            for part in loss.losses if loss else ():
                if getattr(part, "reduction", "mean") != "mean":
                    name, reduction = type(part).__name__, part.reduction
                    raise ValueError(f"{name}: reduction {reduction} would depend on the batch size; use mean")
            return loss

    @functools.cached_property
    def eval_metric(self) -> CombinedMetric | None:
        """What is measured in evaluation; the first figure decides which weights are best."""
        return self._metric("Eval", self.config.Metric.Eval)

    @functools.cached_property
    def precision(self) -> Precision:
        """Number formats."""
        amp = self.config.AMP
        if amp is None or not amp.use_amp:
            return Precision()
        scaler = LossScaler(
            amp.scale_loss,
            amp.use_dynamic_loss_scaling,
            amp.min_loss_scale,
            amp.incr_every_n_steps,
            amp.decr_every_n_nan_or_inf,
        )
        return Precision(amp.level, amp.dtype, amp.use_promote, scaler)

    @property
    def eval_precision(self) -> Precision | None:
        """Number formats of the evaluation; None is float32."""
        amp = self.config.AMP
        # PaddleClas: with O2 the weights themselves are small, so evaluation runs in the small type too.
        if amp and amp.use_amp and (amp.use_fp16_test or (amp.level == "O2" and not self.config.EMA)):
            return self.precision
        return None

    @functools.cached_property
    def ema(self) -> ModelEMA | None:
        """The moving average of the weights, if the file asks for one."""
        return ModelEMA(self.model, self.config.EMA.decay) if self.config.EMA else None

    def evaluate(self) -> dict[str, float]:
        """The figures of the present weights (the averaged ones, with EMA) on ``DataLoader.Eval``."""
        return self._evaluate(self.eval_loader)

    def _evaluate(self, loader: Loader | Watched) -> dict[str, float]:
        model = self.ema.model if self.ema else self.model
        evaluate = EVALUATORS[self.settings.eval_mode]
        with paddles_check("evaluation"):
            return evaluate(model, loader, self.eval_loss, self.eval_metric, self.eval_precision)

    def answers(self, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
        """What ``Infer`` makes of images: one result for each, in order, ``error`` in those that cannot be read."""
        model = self.model
        model.eval()

        @paddle.no_grad()
        def logits_of_images(images: np.ndarray) -> np.ndarray:
            return logits_of(model(paddle.to_tensor(images))).astype("float32").numpy()

        return answers(logits_of_images, paths, self.transforms, self.postprocess, self.infer.batch_size)

    def close(self) -> None:
        """End the processes that read images."""
        for name in ("train_loader", "eval_loader"):
            if name in vars(self):
                vars(self)[name].close()

    def _metric(self, name: str, calls: list[Call] | None) -> CombinedMetric | None:
        with blamed_on(self.config.call, f"Metric.{name}"):
            return None if calls is None else CombinedMetric([call() for call in calls])

    def _loader(self, settings: LoaderSettings | None, name: str, is_train: bool, dtype: str = "float32") -> Loader:
        if settings is None:
            raise ConfigError(f"DataLoader.{name}: the section is missing; it says which images to read")
        names = None if is_train else self.class_names
        channels, *_ = self.settings.image_shape
        return build_loader(
            settings, name, is_train, self.class_num, names, channels, self.settings.seed, self.output_dir, dtype
        )

    @property
    def infer(self) -> InferSettings:
        """The section ``Infer``.

        Raises:
            ConfigError: there is none.
        """
        if self.config.Infer is None:
            raise ConfigError("Infer: the section is missing; it says what happens to an image before the model")
        return self.config.Infer


def argument_of(call: Call, name: str) -> Any:
    """What the file says for a parameter, or its default; ``None`` when there is no such parameter."""
    parameter = parameters_of(call.target).get(name)
    return call.kwargs.get(name, parameter.default if parameter else None)
