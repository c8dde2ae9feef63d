# SPDX-License-Identifier: Apache-2.0
"""What can be done with one experiment: train, evaluate, infer, export."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import paddle

from ppcls.config import RunConfig
from ppcls.config.registry import TRAIN_STEPS
from ppcls.config.resolved import resolved_text
from ppcls.data.images import find_images
from ppcls.deploy.bundle import KIND
from ppcls.deploy.export import Wanted, export_model
from ppcls.deploy.to_onnx import require_onnx
from ppcls.engine import quantized, report
from ppcls.engine.callbacks import log_evaluation
from ppcls.engine.deployed import DeployedParts
from ppcls.engine.parts import Parts, argument_of
from ppcls.engine.peers import FIRST_BATCH, Peers
from ppcls.engine.restore import restore
from ppcls.engine.resume_point import AUTO
from ppcls.engine.run_directory import BEST, CONFIG_COPY, LOG, directory_of
from ppcls.engine.run_record import RunRecord
from ppcls.engine.sample_images import sample_images
from ppcls.engine.trainer import Trainer, TrainState
from ppcls.engine.training_parts import TrainingParts
from ppcls.utils import dist
from ppcls.utils.device import select_device
from ppcls.utils.download import use_cache_dir
from ppcls.utils.errors import ConfigError, NumericsError, StorageError
from ppcls.utils.lock import held
from ppcls.utils.logger import logger, start_logging
from ppcls.utils.paddle_signals import take_from_paddle
from ppcls.utils.seed import seed_everything
from ppcls.utils.storage import ensure_writable, require_replaceable, write_text


class Engine:
    """One experiment and its verbs.

    Args:
        config: what `ppcls.config.load_config` returned.

    Raises:
        ConfigError: the device is not on this machine.
    """

    def __init__(self, config: RunConfig) -> None:
        take_from_paddle()
        self.config = config
        self.settings = config.Global
        use_cache_dir(config.Global.cache_dir)
        self.device = select_device(config.Global.device)
        limit = config.Global.stall_timeout
        dist.connect(limit and FIRST_BATCH * limit)
        # Paddle 3.3.1 chooses the device anew when processes connect.
        if paddle.get_device().partition(":")[0] != self.device.partition(":")[0]:
            raise ConfigError(
                f"Global.device: '{config.Global.device}', but the launcher gave this process {paddle.get_device()}; "
                "write that device, or start without devices"
            )
        self.device = paddle.get_device()
        seed_everything(config.Global.seed)
        self.parts: Parts = DeployedParts(config) if config.Global.bundle else TrainingParts(config)

    def train(self) -> TrainState:
        """Train to the last epoch; checkpoints, logs and the resolved configuration go to the output directory.

        Raises:
            PpclsError: whatever stands in the way, each kind with its exit code.
            Stopped: a signal has ended it, and it is saved.
        """
        parts = self.parts
        if not isinstance(parts, TrainingParts):
            raise self._no_bundle_can_be("trained")
        with ExitStack() as stack:
            stack.enter_context(parts.signals)
            stack.callback(parts.close)
            with dist.together():
                ensure_writable(parts.output_dir)
                if dist.is_main() or self.settings.save_on_all_ranks:
                    own = ensure_writable(directory_of(dist.rank(), parts.output_dir))
                    stack.enter_context(held(own))
            self._start_log(LOG)
            if self.settings.output_url:
                with dist.together():
                    if self.settings.checkpoints == AUTO:
                        restore(parts.output_dir, self.settings.output_url)
                    stack.enter_context(parts.mirror or nullcontext())
            # Inside the mirror, which copies what is written at the end.
            record = stack.enter_context(RunRecord(parts.output_dir, self.settings.epochs))
            peers = stack.enter_context(self._peers(partial(self._say_last_words, parts, record)))
            return self._train(parts, record, peers)

    def _train(self, parts: TrainingParts, record: RunRecord, peers: Peers) -> TrainState:
        settings = self.settings
        # Before any image is read: the device may not have the small type, the losses may not go with pieces.
        _ = parts.precision, parts.pieces
        loaders = {"Train": parts.train_loader}
        if settings.eval_during_train:
            loaders["Eval"], _ = parts.eval_loader, parts.eval_loss
        report.log_start(parts, self.device, loaders)
        ema = parts.ema  # a copy of the weights before O2 makes them small
        parts.precision.prepare(parts.model, parts.optimizer)
        loss, callbacks = parts.train_loss, parts.callbacks
        # Not before all parts are built: a run that cannot start leaves what the one before it wrote alone.
        state = parts.checkpointer.start(settings.checkpoints)
        peers.follow(state)
        if dist.is_main():
            write_text(parts.output_dir / CONFIG_COPY, resolved_text(self.config.call))
            record.start(state, self.device)
        if state.epochs_done >= settings.epochs:
            logger.info("nothing to do: %d of %d epochs are done", state.epochs_done, settings.epochs)
        model = paddle.DataParallel(parts.model) if dist.world_size() > 1 else parts.model
        with parts.checkpointer:  # its end waits for what is still being written
            Trainer(
                TRAIN_STEPS[settings.train_mode or "ClassificationStep"](model, loss),
                parts.train_loader,
                parts.optimizer,
                parts.schedule,
                settings.epochs,
                settings.update_freq,
                parts.batches_per_epoch,
                parts.precision,
                ema,
                callbacks,
                settings.seed,
                parts.agreement,
                parts.non_finite,
                parts.pieces,
                parts.signals.until_stop,
            ).fit(state)
        if parts.signals.is_stopping and state.epochs_done < settings.epochs:
            dist.gathered(None)  # all end together
            report.log_stop(parts, state, parts.signals.stopped())
            raise parts.signals.stopped()
        report.log_end(parts, state)
        return state

    def eval(self) -> dict[str, float]:
        """Evaluate ``Global.pretrained_model``, or ``Global.bundle``, on ``DataLoader.Eval``; the figures by name.

        Raises:
            NumericsError: they are not finite.
            ConfigError: there are no weights.
            StorageError: the weights are not all there.
        """
        self._start_log("eval.log")
        if not self.settings.bundle:
            _ = self.parts.eval_precision  # before any image is read
        _ = self.parts.eval_loader  # before the model: its labels are checked
        self._require_trained("evaluated")
        with closing(self.parts), self._peers():
            metrics = self.parts.evaluate()
        log_evaluation("[Eval]", metrics)
        if not all(map(math.isfinite, metrics.values())):
            raise NumericsError("the figures are not finite; the weights are damaged, or their training diverged")
        return metrics

    def infer(self) -> Iterator[dict[str, Any]]:
        """Answer ``Infer.infer_imgs``: one result for each image, in order, ``error`` in those that cannot be read."""
        self._start_log(stream=sys.stderr)
        infer = self.parts.infer
        paths = find_images(infer.infer_imgs, infer.infer_list)
        self._require_trained("asked")
        return self.parts.answers(paths)

    def export(self) -> Path:
        """Write the model for deployment to ``Global.save_inference_dir``; gives that directory.

        Raises:
            ParityError: the exported model does not answer as the trained one does.
            StorageError: the directory holds something else, or the weights are not all there.
            ConfigError: there are no weights, or the configuration cannot be exported.
        """
        self._start_log()
        if self.settings.bundle:
            raise self._no_bundle_can_be("exported")
        export_for = self.settings.export_for or ()
        onnx, int8 = "onnxruntime" in export_for or "int8" in export_for, "int8" in export_for
        if onnx:
            require_onnx()
        elif "onnxruntime" in (self.settings.allow_mismatch or ()):
            logger.warning("Global.allow_mismatch: onnxruntime has no effect, as Global.export_for does not name it")
        if int8:
            quantized.require(self.config)
        elif self.settings.allow_int8_loss:
            logger.warning("Global.allow_int8_loss has no effect, as Global.export_for does not name int8")
        # On a GPU Paddle traces linear layers to an operator that ONNX has no word for, and rounds otherwise (TF32).
        select_device("cpu")
        transforms = self.parts.transforms
        directory = Path(self.settings.save_inference_dir)
        try:
            require_replaceable(directory, KIND)
        except StorageError as error:
            raise StorageError(f"Global.save_inference_dir: {error}") from error
        self._require_trained("exported")
        parity = export_model(
            self.parts.model,
            directory,
            Wanted(
                self.settings.image_shape,
                self.config.Arch.infer_add_softmax,
                onnx,
                self.settings.fold_preprocess,
                self.settings.allow_mismatch or (),
            ),
            transforms,
            report.deployment(self.parts),
            sample_images(self.config, transforms),
            partial(quantized.add_int8, self.config) if int8 else None,
        )
        report.log_export(directory, parity)
        return directory

    def _start_log(self, file: str | None = None, stream: TextIO | None = None) -> None:
        enabled = dist.rank() in map(int, str(self.settings.log_ranks).split(","))
        path = ensure_writable(self.parts.output_dir) / file if file else None
        start_logging(path, stream, enabled)
        for warning in self.config.warnings:
            logger.warning("%s", warning)

    @staticmethod
    def _say_last_words(parts: TrainingParts, record: RunRecord, error: BaseException) -> None:
        """Do what has to be done when the main thread cannot, as it waits for a process that has failed."""
        record.__exit__(type(error), error, None)
        if "checkpointer" in vars(parts):
            parts.checkpointer.__exit__(type(error), error, None)

    def _peers(self, last_words: Callable[[BaseException], None] | None = None) -> Peers:
        return Peers(self.settings.stall_timeout, self.parts.output_dir, last_words)

    @staticmethod
    def _no_bundle_can_be(verb: str) -> ConfigError:
        return ConfigError(f"Global.bundle: an exported model cannot be {verb}; write pretrained_model instead")

    def _require_trained(self, verb: str) -> None:
        """Refuse a model that no weights, or not all of them, were loaded into."""
        if self.settings.bundle:
            return  # it was published as complete
        pretrained = argument_of(self.config.Arch.model, "pretrained")
        if not self.settings.pretrained_model and not pretrained:
            best = self.parts.output_dir / BEST
            raise ConfigError(
                f"Global.pretrained_model: not given, so an untrained model would be {verb}; "
                f"name the weights, such as -o Global.pretrained_model={best}"
            )
        _ = self.parts.model  # building it loads the weights
        loaded = self.parts.loaded
        if loaded and (loaded.missing or loaded.wrong_shape):
            raise StorageError(
                f"{loaded}; these parts would be {verb} untrained: Arch has to be what the weights were trained "
                f"with (Arch.class_num is {self.parts.class_num})"
            )
