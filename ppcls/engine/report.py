# SPDX-License-Identifier: Apache-2.0
"""What a person is told before and after: the run in a few lines, and what to do next."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ppcls.data.doubts import doubts
from ppcls.data.loader import Loader
from ppcls.deploy.bundle import LABEL_ARGUMENTS, LABELS
from ppcls.engine.parts import Parts
from ppcls.engine.run_directory import BEST, CONFIG_COPY, checkpoints_in
from ppcls.engine.trainer import TrainState
from ppcls.engine.training_parts import TrainingParts
from ppcls.utils import dist
from ppcls.utils.errors import DataError, Stopped
from ppcls.utils.flops import count_macs
from ppcls.utils.logger import logger

USUAL_SIDE = 224
"""Pixels, where the size of images is free."""


def log_start(parts: TrainingParts, device: str, loaders: Mapping[str, Loader]) -> None:
    """The run in a few lines: model, data, device, steps, output."""
    settings, model = parts.settings, parts.model
    num_parameters = sum(parameter.size for parameter in model.parameters())
    image_shape = [USUAL_SIDE if side < 0 else side for side in settings.image_shape]
    macs = count_macs(model, image_shape)
    shape = "x".join(map(str, image_shape))
    name = parts.config.Arch.model.name
    logger.info("model    %s, %s parameters, %.3f GMACs for a %s image", name, f"{num_parameters:,}", macs / 1e9, shape)
    for split, loader in loaders.items():
        dataset = loader.dataset
        workers = f", read by {_counted(loader.num_workers, 'worker')}" if loader.num_workers else ""
        size = f"{len(dataset):,}"
        logger.info("%-8s %s images of %d classes%s", split.lower(), size, dataset.num_classes, workers)
        largest = len(dataset.class_counts) - 1
        if split == "Train" and parts.class_num is not None and largest < parts.class_num - 1:
            logger.warning("Arch.class_num is %d, but the training labels end at %d", parts.class_num, largest)
    if dist.is_main():
        evaluated = loaders.get("Eval")
        for doubt in doubts(parts.train_loader.dataset, evaluated.dataset if evaluated else None):
            logger.warning("%s", doubt)
    processes = dist.world_size()
    batch = parts.train_loader.batch_size
    logger.info("device   %s, %s", device, _counted(processes, "process", "processes"))
    logger.info(
        "steps    %s of %s, %d images each (%d a batch x %s x %s)",
        _counted(settings.epochs, "epoch"),
        _counted(parts.updates_per_epoch, "update"),
        *(batch * processes * settings.update_freq, batch),
        _counted(processes, "process", "processes"),
        _counted(settings.update_freq, "batch", "batches"),
    )
    logger.info("output   %s", parts.output_dir)
    left_out = (settings.iter_per_epoch or len(parts.train_loader)) - parts.batches_per_epoch
    if left_out:
        logger.warning("update_freq leaves out the last %s of each epoch", _counted(left_out, "batch", "batches"))


def log_end(parts: TrainingParts, state: TrainState) -> None:
    """Where the model is, and the commands to go on with."""
    directory = parts.output_dir / BEST
    if state.best is None or not directory.exists():
        newest = checkpoints_in(parts.output_dir)
        if not newest:
            return
        directory = newest[0]
    else:
        logger.info("best     %.5f in epoch %d", state.best, state.best_epoch)
    logger.info("model    %s", directory)
    arguments = ["-c", str(parts.output_dir / CONFIG_COPY), "-o", f"Global.pretrained_model={directory}"]
    if parts.config.Infer:
        logger.info("next     %s", shlex.join(["python", _tool("export_model"), *arguments]))
    if parts.config.Infer and parts.config.Infer.infer_imgs:
        logger.info("         %s", shlex.join(["python", _tool("infer"), *arguments]))


def log_stop(parts: TrainingParts, state: TrainState, error: Stopped) -> None:
    """Where a run that a signal has ended is saved, and how it goes on."""
    newest = checkpoints_in(parts.output_dir)
    if not newest:
        logger.warning("%s before the first update: there is nothing to save", error)
        return
    where = f"in epoch {state.epoch}" if state.batch else f"after epoch {state.epoch}"
    logger.warning(
        "%s %s, step %d; saved in %s; to go on, give the same command with -o Global.checkpoints=auto",
        *(error, where, state.step, newest[0]),
    )


def _tool(name: str) -> str:
    """The path of another tool, beside the one that runs."""
    running = Path(sys.argv[0])
    is_tool = running.name in ("train.py", "export_model.py")
    return str(running.with_name(f"{name}.py") if is_tool else Path("tools", f"{name}.py"))


def _counted(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def log_export(directory: Path, parity: Mapping[str, Any]) -> None:
    """What was published, and how close it is."""
    kind = "real images" if parity["real_images"] else "images of noise, as none was found,"
    logger.info("parity   %d %s in %d cases", parity["images"], kind, len(parity["cases"]))
    for figures in parity["engines"].values():
        logger.info(
            "parity   largest difference %.2g (%.0f %% of the allowed %g of the largest logit), "
            "same first class for all, %.2f ms an image, in %s",
            *(figures["largest_difference"], 100 * figures["largest_share_of_limit"], parity["tolerance"]),
            *(figures["latency_ms"], figures["engine"]),
        )
    logger.info("exported %s", directory)
    logger.info("next     python %s --bundle %s IMAGE", _tool("infer"), shlex.quote(str(directory)))
    logger.info("         python %s --bundle %s", _tool("serve"), shlex.quote(str(directory)))


def deployment(parts: Parts) -> dict[str, Any]:
    """What a deployed model has to know besides its graph, in the layout of PaddleClas's ``inference.yml``.

    Raises:
        DataError: the file of class names lacks one.
    """
    config, infer = parts.config, parts.infer
    postprocess = {key: value for key, value in infer.PostProcess.kwargs.items() if key not in LABEL_ARGUMENTS}
    labels = parts.postprocess.load_labels()
    if labels is not None:
        numbers = range(parts.class_num or max(labels, default=-1) + 1)
        if more := sorted(labels.keys() - set(numbers)):
            file = infer.PostProcess.kwargs.get("class_id_map_file")
            logger.warning(
                "%s: names class %d, but the model has %d classes; is it its file?", file, more[0], len(numbers)
            )
        if nameless := [number for number in numbers if number not in labels]:
            file = infer.PostProcess.kwargs.get("class_id_map_file")
            raise DataError(
                f"{file}: no name for class {nameless[0]}, though the model has {len(numbers)} classes; "
                "take the file that belongs to the model, or none; nothing was published"
            )
        postprocess[LABELS] = [labels[number] for number in numbers]
    modules = [call.target.__module__ for call in (*infer.transforms, infer.PostProcess)]
    return {
        "Global": {
            "model_name": config.Arch.model.name,
            "image_shape": list(config.Global.image_shape),
            "class_names": parts.class_names,
            "imports": sorted({module for module in modules if not module.startswith("ppcls.")}),
        },
        "PreProcess": {"transform_ops": [{call.name: call.kwargs or None} for call in infer.transforms]},
        "PostProcess": {infer.PostProcess.name: postprocess},
    }
