# SPDX-License-Identifier: Apache-2.0
"""One experiment: a lazy list of its parts, and what can be done with them.

Every part is built when it is first asked for, so evaluating never builds an optimizer and no mode flag exists.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paddle
from paddle import nn

from ppcls import __version__
from ppcls.arch.output import logits_of
from ppcls.arch.pretrained import load_weights, read_weights
from ppcls.config import RunConfig
from ppcls.config.annotation import parameters_of
from ppcls.config.registry import EVALUATORS, TRAIN_STEPS, Call
from ppcls.config.resolved import resolved_text
from ppcls.config.schema import AMPSettings, LoaderSettings
from ppcls.data.images import find_images
from ppcls.data.loader import Loader
from ppcls.engine import report
from ppcls.engine.callbacks import (
    Callback,
    Evaluation,
    JsonLines,
    Progress,
    Record,
    SaveCheckpoint,
    VisualDLScalars,
    shown,
)
from ppcls.engine.checkpoint import Checkpointer, Parts
from ppcls.engine.ema import ModelEMA
from ppcls.engine.inference import answers
from ppcls.engine.precision import Precision
from ppcls.engine.trainer import Trainer, TrainState
from ppcls.loss import CombinedLoss, build_loss
from ppcls.metric import CombinedMetric
from ppcls.optimizer import Schedule, build_optimizer, build_schedule
from ppcls.utils import dist
from ppcls.utils.device import select_device
from ppcls.utils.errors import ConfigError
from ppcls.utils.logger import logger, start_logging
from ppcls.utils.seed import seed_everything
from ppcls.utils.storage import ensure_writable

CONFIG_COPY = "config.yaml"


class Engine:
    """The parts of one experiment, and its verbs.

    Args:
        config: what `ppcls.config.load_config` returned.

    Raises:
        ConfigError: the device is not on this machine.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.settings = config.Global
        self.output_dir = Path(config.Global.output_dir)
        self.device = select_device(config.Global.device)
        dist.connect()
        seed_everything(config.Global.seed)
        self.class_num: int = _argument(config.Arch.model, "class_num")

    @functools.cached_property
    def train_loader(self) -> Loader:
        """Training batches of this process, their labels checked."""
        return self._loader(self.config.DataLoader.Train, "Train", is_train=True)

    @functools.cached_property
    def eval_loader(self) -> Loader:
        """Evaluation batches of this process, their labels checked."""
        return self._loader(self.config.DataLoader.Eval, "Eval", is_train=False)

    @functools.cached_property
    def model(self) -> nn.Layer:
        """The architecture, filled with ``Arch.pretrained`` or ``Global.pretrained_model``."""
        seed_everything(self.settings.seed)
        model = self.config.Arch.model()
        if self.config.Arch.use_sync_bn and dist.world_size() > 1:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        if source := self.settings.pretrained_model:
            logger.info("%s", load_weights(model, read_weights(source), source))
        return model

    @functools.cached_property
    def train_loss(self) -> CombinedLoss:
        """What is minimized."""
        if self.config.Loss is None:
            raise ConfigError("Loss: the section is missing; training needs to know what to minimize")
        return build_loss(self.config.Loss.Train)

    @functools.cached_property
    def eval_loss(self) -> CombinedLoss | None:
        """What evaluation reports beside its metrics."""
        items = self.config.Loss.Eval if self.config.Loss else None
        return build_loss(items) if items else None

    @functools.cached_property
    def train_metric(self) -> CombinedMetric | None:
        """What is measured on training batches."""
        calls = self.config.Metric.Train
        return CombinedMetric([call() for call in calls]) if calls else None

    @functools.cached_property
    def eval_metric(self) -> CombinedMetric | None:
        """What is measured in evaluation; the first figure decides which weights are best."""
        calls = self.config.Metric.Eval
        return CombinedMetric([call() for call in calls]) if calls else None

    @functools.cached_property
    def batches_per_epoch(self) -> int:
        """Training batches that count as an epoch, a multiple of ``Global.update_freq``."""
        available, wanted = len(self.train_loader), self.settings.iter_per_epoch
        if wanted and wanted > available:
            raise ConfigError(f"Global.iter_per_epoch: {wanted}, but the training set has only {available} batches")
        batches = (wanted or available) // self.settings.update_freq * self.settings.update_freq
        if not batches:
            raise ConfigError(
                f"Global.update_freq: {self.settings.update_freq} batches make one update, "
                f"but an epoch has only {wanted or available}; make it or the batch size smaller"
            )
        return batches

    @functools.cached_property
    def schedule(self) -> Schedule:
        """The learning rate, in steps of one optimizer update."""
        steps = self.batches_per_epoch // self.settings.update_freq
        return build_schedule(self._optimizer_settings, self.settings.epochs, steps)

    @functools.cached_property
    def optimizer(self) -> paddle.optimizer.Optimizer:
        """The optimizer of the model's parameters."""
        return build_optimizer(self._optimizer_settings, self.model, self.schedule)

    @functools.cached_property
    def precision(self) -> Precision:
        """Number formats."""
        return _precision(self.config.AMP)

    @functools.cached_property
    def ema(self) -> ModelEMA | None:
        """The moving average of the weights, if the file asks for one."""
        return ModelEMA(self.model, self.config.EMA.decay) if self.config.EMA else None

    @functools.cached_property
    def checkpointer(self) -> Checkpointer:
        """Saves and restores this training."""
        parts = Parts(self.model, self.optimizer, self.schedule, self.precision, self.ema)
        description = {
            "arch": self.config.Arch.model.name,
            "class_num": self.class_num,
            "ppcls": __version__,
            "paddle": paddle.__version__,
        }
        return Checkpointer(self.output_dir, parts, self.settings.save_interval, description)

    @functools.cached_property
    def callbacks(self) -> list[Callback]:
        """What looks on while training, in the order in which it is called."""
        settings = self.settings
        records = self._records()
        progress = Progress(
            settings.epochs,
            self.batches_per_epoch,
            settings.print_batch_step,
            self.train_metric,
            settings.print_mem_info,
            records,
        )
        callbacks: list[Callback] = [progress]
        if settings.eval_during_train:
            metric = self.eval_metric
            callbacks.append(
                Evaluation(
                    self._evaluate,
                    self.checkpointer.save_best,
                    metric.main if metric else None,
                    metric.higher_is_better if metric else True,
                    settings.eval_interval,
                    settings.start_eval_epoch,
                    settings.epochs,
                    records,
                )
            )
        callbacks.append(SaveCheckpoint(self.checkpointer))
        return callbacks

    def train(self) -> TrainState:
        """Train to the last epoch; checkpoints, logs and the resolved configuration go to the output directory.

        Raises:
            PpclsError: whatever stands in the way, each kind with its exit code.
        """
        ensure_writable(self.output_dir)
        self._start_log("train.log")
        if dist.is_main():
            text = resolved_text(self.config.call)
            (self.output_dir / CONFIG_COPY).write_text(text, encoding="utf-8")
        loaders = {"Train": self.train_loader}
        if self.settings.eval_during_train:
            loaders["Eval"] = self.eval_loader
        report.log_start(self, loaders)
        self.precision.prepare(self.model, self.optimizer)
        state = self.checkpointer.load(self.settings.checkpoints) if self.settings.checkpoints else TrainState()
        if state.epoch >= self.settings.epochs:
            logger.info("nothing to do: %d of %d epochs are done", state.epoch, self.settings.epochs)
        step = TRAIN_STEPS[self.settings.train_mode or "ClassificationStep"](
            self._parallel(self.model), self.train_loss
        )
        trainer = Trainer(
            step,
            self.train_loader,
            self.optimizer,
            self.schedule,
            self.settings.epochs,
            self.settings.update_freq,
            self.batches_per_epoch,
            self.precision,
            self.ema,
            self.callbacks,
            self.settings.seed,
        )
        trainer.fit(state)
        report.log_end(self, state)
        return state

    def eval(self) -> dict[str, float]:
        """Evaluate ``Global.pretrained_model`` on ``DataLoader.Eval``; the figures by name."""
        self._start_log("eval.log")
        self._require_weights("evaluated")
        metrics = self._evaluate()
        logger.info("[Eval][Avg] %s", shown(metrics))
        return metrics

    def infer(self) -> Iterator[dict[str, Any]]:
        """Answer ``Infer.infer_imgs``: one result for each image, in order, ``error`` in those that cannot be read."""
        start_logging(stream=sys.stderr)
        infer = self._infer_settings()
        self._require_weights("asked")
        model = self.model
        model.eval()

        @paddle.no_grad()
        def logits_of_images(images: Any) -> Any:
            return logits_of(model(paddle.to_tensor(images))).astype("float32").numpy()

        paths = find_images(infer.infer_imgs, infer.infer_list)
        transforms = [call() for call in infer.transforms]
        return answers(logits_of_images, paths, transforms, infer.PostProcess(), infer.batch_size)

    def export(self) -> Path:
        """Write the model for deployment to ``Global.save_inference_dir``; gives that directory.

        Raises:
            ParityError: the exported model does not answer as the trained one does.
        """
        from ppcls.deploy.export import export_model

        self._start_log(None)
        infer = self._infer_settings()
        self._require_weights("exported")
        directory = Path(self.settings.save_inference_dir)
        parity = export_model(
            self.model,
            directory,
            self.settings.image_shape,
            self.config.Arch.infer_add_softmax,
            [call() for call in infer.transforms],
            report.deployment(self),
            report.sample_images(self.config),
        )
        report.log_export(directory, parity)
        return directory

    def _evaluate(self) -> dict[str, float]:
        model = self.ema.model if self.ema else self.model
        precision = self.precision if self.config.AMP and self.config.AMP.use_fp16_test else None
        evaluate = EVALUATORS[self.settings.eval_mode]
        return evaluate(model, self.eval_loader, self.eval_loss, self.eval_metric, precision)

    def _loader(self, settings: LoaderSettings | None, name: str, is_train: bool) -> Loader:
        if settings is None:
            raise ConfigError(f"DataLoader.{name}: the section is missing; it says which images to read")
        dataset = settings.dataset()
        dataset.check_labels(self.class_num)
        sampler = settings.sampler(
            num_samples=len(dataset),
            num_replicas=dist.world_size(),
            rank=dist.rank(),
            seed=self.settings.seed,
            pad=is_train,
        )
        if not len(sampler) and dist.world_size() == 1:
            raise ConfigError(
                f"DataLoader.{name}.sampler: {len(dataset)} images do not fill one batch of "
                f"{sampler.batch_size} and drop_last is true; make the batch smaller"
            )
        workers = settings.loader
        return Loader(dataset, sampler, workers.num_workers, workers.use_shared_memory, self.settings.seed)

    def _parallel(self, model: nn.Layer) -> nn.Layer:
        return paddle.DataParallel(model) if dist.world_size() > 1 else model

    def _records(self) -> tuple[Record, ...]:
        if not dist.is_main():
            return ()
        records: list[Record] = [JsonLines(self.output_dir / "train.jsonl")]
        if self.settings.use_visualdl:
            try:
                records.append(VisualDLScalars(self.output_dir / "vdl"))
            except ImportError:
                raise ConfigError("Global.use_visualdl: visualdl is not installed; pip install visualdl") from None
        return tuple(records)

    def _start_log(self, file: str | None) -> None:
        enabled = str(dist.rank()) in self.settings.log_ranks.split(",")
        path = self.output_dir / file if file else None
        if path and enabled:
            ensure_writable(self.output_dir)
        start_logging(path, enabled=enabled)
        for warning in self.config.warnings:
            logger.warning("%s", warning)

    @property
    def _optimizer_settings(self) -> Any:
        if self.config.Optimizer is None:
            raise ConfigError("Optimizer: the section is missing; training needs to know how weights move")
        return self.config.Optimizer

    def _infer_settings(self) -> Any:
        if self.config.Infer is None:
            raise ConfigError("Infer: the section is missing; it says what happens to an image before the model")
        return self.config.Infer

    def _require_weights(self, verb: str) -> None:
        pretrained = _argument(self.config.Arch.model, "pretrained")
        if not self.settings.pretrained_model and not pretrained:
            logger.warning("no weights are given (Global.pretrained_model), so an untrained model is %s", verb)


def _argument(call: Call, name: str) -> Any:
    """What the file says for a parameter, or its default; ``None`` when there is no such parameter."""
    parameter = parameters_of(call.target).get(name)
    return call.kwargs.get(name, parameter.default if parameter else None)


def _precision(settings: AMPSettings | None) -> Precision:
    if settings is None or not settings.use_amp:
        return Precision()
    return Precision(
        True,
        settings.level,
        settings.dtype,
        settings.scale_loss,
        settings.use_dynamic_loss_scaling,
        settings.use_promote,
    )

