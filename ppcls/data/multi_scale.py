# SPDX-License-Identifier: Apache-2.0
"""Training in several sizes: the sampler that draws one for each batch, and the data set that makes images in it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from ppcls.config.registry import DATASETS, SAMPLERS, TRANSFORMS, Call, Count
from ppcls.data.list_file import ImageNetDataset
from ppcls.data.position import Position
from ppcls.data.rng import SampleRng
from ppcls.data.sampler import Sampler, raw_words

_STEPS = 4
_SIZED = ("RandCropImage", "ResizeImage", "CropImage")


@SAMPLERS.register
class MultiScaleSampler(Sampler):
    """Batches of one size each, drawn from several; the smaller the images, the more are in a batch.

    It goes together with `MultiScaleDataset` (Mehta and Rastegari, arXiv:2110.02178, appendix B). All ranks have
    the same size at the same time. How often each size comes is drawn once, so that all epochs are as long; in
    which order, and with which samples, anew for each epoch.

    Args:
        scales: sizes in pixels: one number for a square, or [width, height].
        first_bs: samples per batch of the first size, on each rank; others have as many pixels, or a few less.
        divided_factor: sizes are rounded down to a multiple of it.
        is_training: false takes the first size only, as it is written, and does not shuffle.
        shuffle: a new order of samples and sizes each epoch.
        num_samples: length of the data set.
        num_replicas: number of ranks.
        rank: this process, 0..num_replicas-1.
        seed: of the run.
        pad: true; an evaluation reads each image in one size.

    Raises:
        ValueError: no size, one that is rounded down to nothing, or an evaluation.

    YAML::

        - MultiScaleSampler: {scales: [256, 160, 192, 224, 288, 320], first_bs: 128, divided_factor: 32}
    """

    gives_sizes = True

    def __init__(
        self,
        scales: list[Count | tuple[Count, Count]],
        first_bs: Count,
        divided_factor: Count = 32,
        is_training: bool = True,
        shuffle: bool = True,
        *,
        num_samples: int,
        num_replicas: int = 1,
        rank: int = 0,
        seed: int = 0,
        pad: bool = True,
    ) -> None:
        super().__init__(first_bs, False, num_samples, num_replicas, rank, seed)
        if not pad:
            raise ValueError("MultiScaleSampler draws sizes, so it is for training only; take DistributedBatchSampler")
        if not scales:
            raise ValueError("scales is empty; give at least one size, such as [256]")
        sizes = [(scale, scale) if isinstance(scale, int) else (scale[0], scale[1]) for scale in scales]
        self.shuffle = shuffle and is_training
        self.scales = _with_batch_sizes(sizes, first_bs, divided_factor) if is_training else [(sizes[0], first_bs)]
        self._steps = self._draw_steps()

    def __len__(self) -> int:
        return len(self._steps)

    def _draw_steps(self) -> np.ndarray:
        """The number of the size for each step of an epoch: as many as it takes to reach every sample."""
        batch_sizes = np.array([batch_size for _, batch_size in self.scales]) * self.num_replicas
        most = -(-self.num_samples // int(batch_sizes.min()))
        drawn = (raw_words(self.seed, 0, (0, _STEPS, 0), most) % np.uint64(len(self.scales))).astype(np.int64)
        return drawn[: int(np.searchsorted(np.cumsum(batch_sizes[drawn]), self.num_samples)) + 1]

    def _batches(self, epoch: int, start: int) -> Iterator[list[Position]]:
        order = self._order(epoch, self.shuffle)
        steps = self._steps
        if self.shuffle:
            words = raw_words(self.seed, epoch, (0, _STEPS, 0), len(steps))
            steps = steps[np.argsort(words, kind="stable")]
        head = 0
        for number, step in enumerate(steps.tolist()):
            size, batch_size = self.scales[step]
            if number >= start:
                own = np.arange(batch_size) + head + self.rank * batch_size
                # The last steps may reach beyond the end, and begin again.
                yield [Position(epoch, index, 0, size) for index in order[own % self.num_samples].tolist()]
            head += batch_size * self.num_replicas


@DATASETS.register
class MultiScaleDataset(ImageNetDataset):
    """`ImageNetDataset` for `MultiScaleSampler`: it makes an image in the size that the sampler drew.

    That size takes the place of ``size`` in ``RandCropImage``, ``ResizeImage`` and ``CropImage``, and of
    ``resize_short``; what they say themselves is the size for other samplers.

    Args:
        image_root: as in `ImageNetDataset`.
        cls_label_path: as in `ImageNetDataset`.
        transform_ops: operations, applied in this order, one of the three among them.
        delimiter: as in `ImageNetDataset`.

    Raises:
        DataError: as `ImageNetDataset`.
        ValueError: none of the operations has a size to replace.

    YAML::

        - MultiScaleDataset:
            image_root: ./dataset/ILSVRC2012/
            cls_label_path: ./dataset/ILSVRC2012/train_list.txt
            transform_ops:
              - RandCropImage: {size: 256}
    """

    takes_sizes = True

    def __init__(
        self,
        image_root: str,
        cls_label_path: str | list[str],
        transform_ops: Annotated[list[Call], TRANSFORMS] | None = None,
        delimiter: str | None = None,
    ) -> None:
        self._calls = transform_ops or []
        if not any(call.name in _SIZED for call in self._calls):
            raise ValueError(f"transform_ops: one of {', '.join(_SIZED)} has to be there, to take the size")
        super().__init__(image_root, cls_label_path, [call() for call in self._calls], delimiter)
        self._of_size: dict[tuple[int, int], list[Any]] = {}

    def sample(
        self, index: int, rng: SampleRng | None = None, size: tuple[int, int] | None = None
    ) -> tuple[np.ndarray, int]:
        """Return an image, as its `pipeline` makes it, and its label.

        Args:
            index: position in the data set.
            rng: where the random operations draw from.
            size: width and height, in place of those that the operations say.

        Raises:
            DataError: the image is missing, damaged or does not suit the operations; names it.
        """
        if size is None:
            return super().sample(index, rng)
        if size not in self._of_size:
            self._of_size[size] = [_resized(call, size)() for call in self._calls]
        scaled = copy.copy(self)
        scaled.pipeline = copy.copy(self.pipeline)
        scaled.pipeline.ops = self._of_size[size]
        return ImageNetDataset.sample(scaled, index, rng)


def _resized(call: Call, size: tuple[int, int]) -> Call:
    if call.name not in _SIZED:
        return call
    # PaddleClas: the other parameters fall back to their defaults; here they stay, such as the scale of a crop.
    kwargs = {key: value for key, value in call.kwargs.items() if key != "resize_short"}
    return replace(call, kwargs={**kwargs, "size": list(size)})


def _with_batch_sizes(
    sizes: list[tuple[int, int]], first_batch_size: int, factor: int
) -> list[tuple[tuple[int, int], int]]:
    """Each size, rounded down, and how many images of it have as many pixels as a batch of the first."""
    num_pixels = sizes[0][0] * sizes[0][1] * first_batch_size
    scales = []
    for width, height in sizes:
        rounded = (width // factor * factor, height // factor * factor)
        if 0 in rounded:
            raise ValueError(f"scales: {width} x {height} is less than divided_factor, {factor}")
        scales.append((rounded, max(1, num_pixels // (rounded[0] * rounded[1]))))
    return scales
