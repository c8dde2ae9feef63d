# SPDX-License-Identifier: Apache-2.0
"""The operations of a recipe in their order, and where each of them runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ppcls.data.draft import DraftCrop, decode_and_crop
from ppcls.data.finish import Finish
from ppcls.data.rng import BatchRng, SampleRng
from ppcls.data.transforms import functional
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.transform import Transform


class Pipeline:
    """From a stored image to what a model takes.

    Args:
        ops: operations, applied in this order; the first may decode, and does so without being asked when left out.

    Raises:
        ValueError: an operation cannot stand where it stands.
    """

    def __init__(self, ops: Sequence[Callable]) -> None:
        self.ops = list(ops)
        require_order(self.ops)
        self.num_finishing = 0
        self._is_split = False
        first, second = (*self.ops, None, None)[:2]
        self._decodes = isinstance(first, DecodeImage)
        self._crops_early = self._decodes and not first.channel_first and isinstance(second, DraftCrop)

    def finish(self) -> Finish:
        """Leave the last operations to what is returned, which does them on whole batches.

        Those are left that change each pixel by itself; an operation in front of one that cannot be left stays too.
        From now on this makes images as they are before them, mostly uint8, in the layout that they then have.
        """
        finishing: list[Transform] = []
        for op in reversed(self.ops):
            if not isinstance(op, Transform) or not op.runs_on_device:
                break
            finishing.insert(0, op)
        self.num_finishing = len(finishing)
        self._is_split = True
        return Finish(finishing, self._is_channel_first)

    def __call__(self, image: bytes | np.ndarray, rng: SampleRng | None = None) -> np.ndarray:
        """Return the image with everything done, as [C, H, W]; after `finish`, without the last operations.

        Args:
            image: a file's bytes, or uint8 [H, W, 3] in the order R, G, B.
            rng: where the random operations draw from.

        Raises:
            DataError: it is no intact image.
            ValueError: it does not suit the operations.
        """
        ops = self._ops
        if not isinstance(image, np.ndarray):
            if self._crops_early and rng is not None:
                image, ops = decode_and_crop(image, *ops[:2], rng), ops[2:]
            elif not self._decodes:
                image = functional.decode_image(image)
        for op in ops:
            image = op(image, rng)
        return image if self._is_split or self._is_channel_first else image.transpose(2, 0, 1)

    @property
    def takes_batches(self) -> bool:
        """Whether `many` works: every operation takes images of one size many at a time."""
        return all(isinstance(op, Transform) and op.takes_batches for op in self._ops)

    def many(self, images: np.ndarray, rng: BatchRng) -> np.ndarray:
        """Return for uint8 images [N, H, W, 3] what calling this returns for each; may change them in place.

        Raises:
            ValueError: they do not suit the operations.
        """
        for op in self._ops:
            images = op.apply_many(images, op.draw_many(rng, images[0]))
        return images if self._is_split or self._is_channel_first else images.transpose(0, 3, 1, 2)

    @property
    def _ops(self) -> list[Any]:
        return self.ops[: len(self.ops) - self.num_finishing]

    @property
    def _is_channel_first(self) -> bool:
        """Whether the operations end with the channels first."""
        return any(isinstance(op, Transform) and op.makes_channel_first for op in self._ops)


def require_order(ops: Sequence[Callable]) -> None:
    """Make sure that no operation for images [H, W, C] stands behind one that makes them [C, H, W].

    Some would fail with every image; others would mirror, turn or crop it along the wrong axes.

    Raises:
        ValueError: one does; names both.
    """
    maker = None
    for op in ops:
        if isinstance(op, Transform):
            if maker and not op.takes_channel_first:
                name = type(op).__name__
                raise ValueError(f"{name} takes images [H, W, C], {maker} makes [C, H, W]; put {name} before it")
            if op.makes_channel_first:
                maker = type(op).__name__
