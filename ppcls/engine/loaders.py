# SPDX-License-Identifier: Apache-2.0
"""From a section of ``DataLoader`` to batches: the data set read and tried, its sampler, and who does what where."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ppcls.config.annotation import parameters_of
from ppcls.config.registry import Call
from ppcls.config.schema import LoaderSettings
from ppcls.data.bad_samples import BadSamples, report_of
from ppcls.data.batch_ops import BatchOps
from ppcls.data.dataset import ImageDataset
from ppcls.data.finish import Finish
from ppcls.data.loader import Loader
from ppcls.data.rng import SampleRng
from ppcls.engine.blame import blamed_on
from ppcls.utils import dist
from ppcls.utils.errors import ConfigError, DataError
from ppcls.utils.logger import logger

MAX_TRIED = 8
"""How many images are tried before the first epoch, where bad ones are skipped."""

LARGEST_SHARE_LEFT_OUT = 0.05
"""Of a training set, that an incomplete last batch may have before it is mentioned."""


def build_loader(
    settings: LoaderSettings,
    name: str,
    is_train: bool,
    class_num: int | None,
    class_names: Sequence[str] | None,
    num_channels: int,
    seed: int,
    output_dir: Path,
    dtype: str = "float32",
) -> Loader:
    """Return the batches of this process.

    Args:
        settings: the section.
        name: of the section, ``Train`` or ``Eval``.
        is_train: every rank gets as many samples; otherwise each sample comes once.
        class_num: of the model; labels are held against it. None where it is not known.
        class_names: by which the data set has to number its classes; None for its own order.
        num_channels: of an image that the model takes.
        seed: of the run.
        output_dir: where samples that cannot be read are reported.
        dtype: of an image that the model takes.

    Raises:
        ConfigError: the data set, the operations and the sampler do not go together.
        DataError: there are no images, labels beyond the classes, or the first image cannot be read.
    """
    source = settings.dataset.source
    with blamed_on(source, f"DataLoader.{name}.dataset"):
        dataset = source()
        if class_names is not None:
            dataset.use_class_names(class_names)
    if class_num is not None:
        dataset.check_labels(class_num)
    with blamed_on(source, f"DataLoader.{name}.dataset"):
        _try_image(dataset, name, seed, num_channels, dtype, settings.on_bad_sample == "skip")
    sampler = _sampler(settings, dataset, name, is_train, seed)
    finish = dataset.pipeline.finish() if isinstance(dataset, ImageDataset) else Finish([], is_channel_first=True)
    if settings.dataset.batch_transform_ops:
        finish.batch_ops = _batch_ops(settings.dataset.batch_transform_ops, class_num, seed)
    workers = settings.loader
    return Loader(
        dataset,
        sampler,
        workers.num_workers,
        workers.use_shared_memory,
        seed,
        workers.prefetch_factor,
        workers.timeout,
        finish,
        _bad_samples(settings, dataset, name, output_dir),
        is_train,
    )


def _try_image(dataset: Any, name: str, seed: int, num_channels: int, dtype: str, may_skip: bool) -> None:
    """Read one image: a wrong folder is found now, not when the evaluation after the first epoch starts."""
    image = None
    for index in range(min(MAX_TRIED, len(dataset))):
        try:
            image, _ = dataset.sample(index, SampleRng(seed, 1, index))
            break
        except DataError:
            if not may_skip or index == min(MAX_TRIED, len(dataset)) - 1:
                raise
    assert image is not None
    if image.dtype != dtype:
        raise ConfigError(
            f"DataLoader.{name}.dataset.transform_ops: end in {image.dtype} images, but the model takes {dtype}; "
            f"{'add' if dtype == 'float32' else 'remove'} NormalizeImage"
        )
    if image.ndim != 3 or image.shape[0] != num_channels:
        raise ConfigError(
            f"DataLoader.{name}.dataset.transform_ops: end in images {list(image.shape)}, but the model takes "
            f"[{num_channels}, H, W] (Global.image_shape)"
        )


def _sampler(settings: LoaderSettings, dataset: Any, name: str, is_train: bool, seed: int) -> Any:
    call = settings.sampler
    labels = {"labels": dataset.labels} if "labels" in parameters_of(call.target) else {}
    with blamed_on(call, f"DataLoader.{name}.sampler"):
        sampler = call(
            num_samples=len(dataset),
            num_replicas=dist.world_size(),
            rank=dist.rank(),
            seed=seed,
            pad=is_train,
            **labels,
        )
    if getattr(sampler, "gives_sizes", False) and not getattr(dataset, "takes_sizes", False):
        raise ConfigError(
            f"{call.where}: DataLoader.{name}.sampler: {call.name} draws sizes, which "
            f"{settings.dataset.source.name} does not take; write MultiScaleDataset"
        )
    if sampler.drop_last and not is_train:
        logger.warning("DataLoader.%s.sampler.drop_last is true: the last images are not evaluated", name)
    global_batch_size = sampler.batch_size * dist.world_size()
    if sampler.drop_last and len(dataset) < global_batch_size:
        raise ConfigError(
            f"DataLoader.{name}.sampler: {len(dataset)} images do not fill one batch of "
            f"{global_batch_size} and drop_last is true; make batch_size smaller"
        )
    left_out = len(dataset) % global_batch_size if sampler.drop_last and is_train else 0
    if left_out > LARGEST_SHARE_LEFT_OUT * len(dataset):
        logger.warning(
            "DataLoader.%s.sampler: %d of %d images are left out of each epoch, as they fill no batch of %d and "
            "drop_last is true; another batch_size may leave out fewer",
            *(name, left_out, len(dataset), global_batch_size),
        )
    return sampler


def _batch_ops(calls: Sequence[Call], class_num: int | None, seed: int) -> BatchOps:
    if class_num is None:
        raise ConfigError("Arch.class_num: not known, and batch_transform_ops makes labels of so many classes")
    ops = []
    for call in calls:
        with blamed_on(call, "DataLoader.Train.dataset.batch_transform_ops"):
            ops.append(call(class_num=class_num))
    return BatchOps(ops, class_num, seed, dist.rank())


def _bad_samples(settings: LoaderSettings, dataset: Any, name: str, output_dir: Path) -> BadSamples | None:
    if settings.on_bad_sample == "error":
        return None
    share = math.ceil(len(dataset) / dist.world_size())
    return BadSamples(dataset, share, settings.max_bad_fraction, name, report_of(dist.rank(), output_dir))
