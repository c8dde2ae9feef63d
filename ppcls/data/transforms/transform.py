# SPDX-License-Identifier: Apache-2.0
"""The face of one image operation."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppcls.data.rng import BatchRng, SampleRng


class Transform:
    """One image operation: `draw` takes all its randomness, `apply` does the work.

    So what happened to an image is a value that can be printed, repeated and tested. An image is
    uint8 [H, W, 3] RGB until it is normalized, float32 afterwards.
    """

    @property
    def is_random(self) -> bool:
        """Whether two calls on one image may differ."""
        return type(self).draw is not Transform.draw

    def draw(self, rng: SampleRng, image: np.ndarray) -> Any:
        """Return the parameters that `apply` needs for this image; None where nothing is random."""
        return None

    def apply(self, image: np.ndarray, params: Any) -> np.ndarray:
        """Return a new image; the same answer for the same image and parameters."""
        raise NotImplementedError

    @property
    def takes_channel_first(self) -> bool:
        """Whether images [C, H, W] suit it as well; otherwise it may not stand behind what makes them."""
        return False

    @property
    def makes_channel_first(self) -> bool:
        """Whether it makes [C, H, W] of images [H, W, C]."""
        return False

    @property
    def takes_batches(self) -> bool:
        """Whether images of one size can be worked on many at a time."""
        return type(self).apply_many is not Transform.apply_many

    def draw_many(self, rng: BatchRng, image: np.ndarray) -> Any:
        """Return what `apply_many` needs for all images: for each of them what `draw` draws, from the same numbers.

        Args:
            rng: of the images; its numbers are arrays [N].
            image: one of them, for its shape.
        """
        return self.draw(rng, image)  # type: ignore[arg-type]

    def apply_many(self, images: np.ndarray, params: Any) -> np.ndarray:
        """Return for every image of [N, H, W, 3] what `apply` returns; may change ``images`` in place."""
        raise NotImplementedError

    @property
    def runs_on_device(self) -> bool:
        """Whether a batch can have this done where the model runs, as the last of the operations."""
        return type(self).finish is not Transform.finish

    def finish(self, images: Any) -> Any:
        """Return a batch [N, C, H, W], array or tensor, with every pixel as `apply` makes it.

        For operations that change each level by itself, in each channel by its own rule, and never the layout: that
        is settled before.
        """
        raise NotImplementedError

    def __call__(self, image: Any, rng: SampleRng | None = None) -> np.ndarray:
        """Draw and apply.

        Raises:
            ValueError: it draws, and there is no generator; or the image does not suit it.
        """
        if rng is None and self.is_random:
            raise ValueError(f"{type(self).__name__} draws at random: call it with a SampleRng")
        return self.apply(image, self.draw(rng, image))

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if not name.startswith("_"))
        return f"{type(self).__name__}({settings})"
