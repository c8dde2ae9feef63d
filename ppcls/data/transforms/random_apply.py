# SPDX-License-Identifier: Apache-2.0
"""Operations that are done to some images only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np

from ppcls.config.registry import TRANSFORMS, Share
from ppcls.data.rng import SampleRng
from ppcls.data.transforms.checks import check_share
from ppcls.data.transforms.transform import Transform


@TRANSFORMS.register
class RandomApply(Transform):
    """Do a list of operations to a share of the images, all of them or none.

    Args:
        p: share of the images.
        transforms: the operations, in their order.

    Raises:
        ValueError: ``p`` not within 0..1, or no operations; when called, as the operations do.

    YAML::

        - RandomApply: {p: 0.5, transforms: [{ColorJitter: {brightness: 0.4}}, {RandFlipImage: {flip_code: 0}}]}
    """

    def __init__(self, p: Share, transforms: Annotated[list[Callable], TRANSFORMS]) -> None:
        check_share("p", p)
        if not transforms:
            raise ValueError("transforms must name at least one operation")
        self.p = p
        self.transforms = transforms

    def draw(self, rng: SampleRng, image: np.ndarray) -> list[Any] | None:
        """Return what each operation draws; None for an image that stays as it is."""
        if rng.random() >= self.p:
            return None
        drawn = []
        # An operation draws for the size that those before it leave; an image without memory takes its place here.
        stand_in = np.broadcast_to(np.uint8(0), image.shape)
        for place, transform in enumerate(self.transforms):
            drawn.append(transform.draw(rng, stand_in))
            if any(later.is_random for later in self.transforms[place + 1 :]):
                stand_in = np.broadcast_to(np.uint8(0), transform.apply(stand_in, drawn[-1]).shape)
        return drawn

    def apply(self, image: np.ndarray, params: list[Any] | None) -> np.ndarray:
        """Return the image after all operations, or as it is."""
        if params is None:
            return image
        for transform, drawn in zip(self.transforms, params):
            image = transform.apply(image, drawn)
        return image

    def __call__(self, image: Any, rng: SampleRng | None = None) -> np.ndarray:
        """Draw and apply, one operation after the other: the same as both for all, without a second image."""
        if rng is None:
            return super().__call__(image, rng)
        if rng.random() >= self.p:
            return image
        for transform in self.transforms:
            image = transform(image, rng)
        return image
