# SPDX-License-Identifier: Apache-2.0
"""The parts of a training, each built from its section when it is first asked for."""

from __future__ import annotations

import functools

import paddle

from ppcls import __version__
from ppcls.config.schema import OptimizerSettings
from ppcls.data.loader import Loader
from ppcls.engine.agreement import Agreement
from ppcls.engine.blame import blamed_on
from ppcls.engine.callbacks import Callback, Evaluation, JsonLines, Record, SaveCheckpoint, VisualDLScalars
from ppcls.engine.changed_config import ComparedConfig
from ppcls.engine.checkpoint import Checkpointer, MovingParts, Pace
from ppcls.engine.guard import NonFinite
from ppcls.engine.mirror import Mirror
from ppcls.engine.parts import Parts
from ppcls.engine.pieces import Pieces
from ppcls.engine.progress import Progress
from ppcls.engine.run_directory import JSON_LINES
from ppcls.engine.signals import Signals, Watched
from ppcls.loss import CombinedLoss, build_loss, is_mean
from ppcls.metric import CombinedMetric
from ppcls.optimizer import Schedule, build_optimizer, build_schedule
from ppcls.utils import dist
from ppcls.utils.errors import ConfigError
from ppcls.utils.logger import logger


class TrainingParts(Parts):
    """`Parts`, and what only a training has.

    Args:
        config: what `ppcls.config.load_config` returned.
    """

    @functools.cached_property
    def train_loader(self) -> Loader:
        """Training batches of this process, their labels checked."""
        return self._loader(self.config.DataLoader.Train, "Train", is_train=True)

    @functools.cached_property
    def class_names(self) -> list[str] | None:
        """The names of the classes by number, if the training set has them or the weights were saved with them."""
        return self.train_loader.dataset.class_names if "train_loader" in vars(self) else super().class_names

    @functools.cached_property
    def train_loss(self) -> CombinedLoss:
        """What is minimized.

        Raises:
            ConfigError: there is no such section, or its settings are refused.
        """
        if self.config.Loss is None:
            raise ConfigError("Loss: the section is missing; training needs to know what to minimize")
        with blamed_on(self.config.call, "Loss.Train"):
            return build_loss(self.config.Loss.Train)

    @functools.cached_property
    def train_metric(self) -> CombinedMetric | None:
        """What is measured on training batches."""
        return self._metric("Train", self.config.Metric.Train)

    @functools.cached_property
    def batches_per_epoch(self) -> int:
        """Training batches that count as an epoch, a multiple of ``Global.update_freq``.

        Raises:
            ConfigError: the data set has not so many.
        """
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

    @property
    def updates_per_epoch(self) -> int:
        """Optimizer updates in an epoch."""
        return self.batches_per_epoch // self.settings.update_freq

    @functools.cached_property
    def schedule(self) -> Schedule:
        """The learning rate, in steps of one optimizer update."""
        with blamed_on(self._optimizer_settings.lr, "Optimizer.lr"):
            return build_schedule(self._optimizer_settings, self.settings.epochs, self.updates_per_epoch)

    @functools.cached_property
    def optimizer(self) -> paddle.optimizer.Optimizer:
        """The optimizer of the model's parameters."""
        with blamed_on(self._optimizer_settings.optimizer, "Optimizer"):
            return build_optimizer(self._optimizer_settings, self.model, self.schedule)

    @functools.cached_property
    def non_finite(self) -> NonFinite:
        """What to do about an update that is not finite."""
        settings = self.settings
        return NonFinite(
            settings.on_non_finite,
            settings.max_non_finite,
            lambda: self.checkpointer.roll_back(settings.checkpoints),
            self.output_dir,
            self.train_loader.samples_of,
        )

    @functools.cached_property
    def pieces(self) -> Pieces:
        """How many images are computed at once."""
        settings = self.settings
        whole = [type(loss).__name__ for loss in self.train_loss.losses if not is_mean(loss)]
        return Pieces(settings.micro_batch_size, settings.on_out_of_memory, whole)

    @functools.cached_property
    def checkpointer(self) -> Checkpointer:
        """Saves and restores this training."""
        settings, images_per_batch = self.settings, self.train_loader.batch_size * dist.world_size()
        if settings.keep_checkpoint_max and settings.save_interval > 1:
            logger.warning("Global.save_interval has no effect beside keep_checkpoint_max; remove one of them")
        if settings.save_step_interval and settings.save_step_interval % self.updates_per_epoch == 0:
            logger.warning(
                "Global.save_step_interval has no effect: %d updates always end an epoch, which has %d",
                *(settings.save_step_interval, self.updates_per_epoch),
            )
        parts = MovingParts(self.model, self.optimizer, self.schedule, self.precision, self.ema)
        description = {
            "arch": self.config.Arch.model.name,
            "class_num": self.class_num,
            "class_names": self.class_names,
            "ppcls": __version__,
            "paddle": paddle.__version__,
        }
        return Checkpointer(
            self.output_dir,
            parts,
            Pace(
                self.updates_per_epoch,
                settings.update_freq,
                images_per_batch * settings.update_freq,
                self.train_loader.num_samples,
            ),
            settings.save_interval,
            settings.keep_checkpoint_max,
            settings.save_on_all_ranks,
            description,
            settings.on_save_error,
            self.mirror.renew if self.mirror else None,
            ComparedConfig.of(self.config.call),
        )

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
            # Images that are made many at a time in memory gain nothing by workers.
            None if getattr(self.train_loader.dataset, "makes_batches", False) else self.train_loader.num_workers,
        )
        callbacks: list[Callback] = [progress]
        if settings.eval_during_train:
            metric = self.eval_metric
            callbacks.append(
                Evaluation(
                    lambda: self._evaluate(Watched(self.eval_loader, self.signals)),
                    self.checkpointer.save_best,
                    metric.main if metric else None,
                    metric.higher_is_better if metric else True,
                    settings.eval_interval,
                    settings.start_eval_epoch,
                    settings.epochs,
                    records,
                    self.batches_per_epoch,
                )
            )
        save_step_interval = settings.save_step_interval
        callbacks.append(SaveCheckpoint(self.checkpointer, progress, save_step_interval, self.agreement, self.signals))
        callbacks.append(self.signals)
        for record in records:
            if isinstance(record, Callback):
                callbacks.append(record)
        if self.mirror:
            callbacks.append(self.mirror)
        return callbacks

    @functools.cached_property
    def agreement(self) -> Agreement:
        """What the processes settle before every update."""
        return Agreement()

    @functools.cached_property
    def signals(self) -> Signals:
        """What the system asks of a training."""
        return Signals(self.agreement, self.settings.update_freq)

    @functools.cached_property
    def mirror(self) -> Mirror | None:
        """Keeps the copy of the output directory at ``Global.output_url``, in the process that writes it."""
        settings = self.settings
        if not settings.output_url or not dist.is_main():
            return None
        return Mirror(
            self.output_dir,
            settings.output_url,
            settings.save_interval,
            settings.keep_checkpoint_max,
        )

    def _records(self) -> tuple[Record, ...]:
        if not dist.is_main():
            return ()
        records: list[Record] = [JsonLines(self.output_dir / JSON_LINES)]
        if self.settings.use_visualdl:
            try:
                records.append(VisualDLScalars(self.output_dir / "vdl"))
            except ImportError:
                raise ConfigError("Global.use_visualdl: visualdl is not installed; pip install visualdl") from None
        return tuple(records)

    @property
    def _optimizer_settings(self) -> OptimizerSettings:
        if self.config.Optimizer is None:
            raise ConfigError("Optimizer: the section is missing; training needs to know how weights move")
        return self.config.Optimizer
