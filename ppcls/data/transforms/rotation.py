# SPDX-License-Identifier: Apache-2.0
"""Images turned: by any angle, or by quarters."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np

from ppcls.config.registry import TRANSFORMS, Share, Within
from ppcls.data.rng import SampleRng
from ppcls.data.transforms import functional
from ppcls.data.transforms.checks import Level, check_share, three_levels
from ppcls.data.transforms.transform import Transform


@TRANSFORMS.register
class RandomRotation(Transform):
    """Turn a share of the images counter-clockwise by a random angle.

    Args:
        degrees: largest angle in either direction; or the list [smallest, largest], negative for clockwise.
        prob: share of the images that are turned.
        interpolation: ``nearest``, ``bilinear`` or ``bicubic``.
        expand: make the image as large as the turned one needs; otherwise its corners are cut off.
        center: the point [x, y] that stays in place, in pixels from the upper left corner; None for the middle.
        fill: value of the new pixels, 0..255: one number, or [R, G, B].

    Raises:
        ValueError: a negative single angle, ends that are swapped, a ``prob`` outside 0..1, a value that no pixel can
            have, or ``center`` together with ``expand``.

    YAML::

        - RandomRotation: {prob: 0.5, degrees: [-45, 45], interpolation: bilinear}
    """

    def __init__(
        self,
        degrees: Annotated[float, Within(0)] | tuple[float, float],
        prob: Share = 0.5,
        interpolation: Literal["nearest", "bilinear", "bicubic"] = "nearest",
        expand: bool = False,
        center: tuple[float, float] | None = None,
        fill: Level | tuple[Level, Level, Level] = 0,
    ) -> None:
        check_share("prob", prob)
        ends = (-degrees, degrees) if isinstance(degrees, (int, float)) else tuple(degrees)
        if len(ends) != 2 or ends[0] > ends[1]:
            raise ValueError(f"degrees must be one angle of at least 0, or [smallest, largest]; got {degrees}")
        if interpolation not in ("nearest", "bilinear", "bicubic"):
            raise ValueError(f"interpolation must be nearest, bilinear or bicubic; got {interpolation!r}")
        if center is not None and (expand or len(center) != 2):
            raise ValueError(f"center must be [x, y], and is for images that keep their size; got {center}")
        self.degrees = degrees
        self.prob = prob
        self.interpolation = interpolation
        self.expand = expand
        self.center = center
        self.fill = fill
        self._ends = ends
        self._fill = three_levels("fill", fill)

    def draw(self, rng: SampleRng, image: np.ndarray) -> float | None:
        """Return the angle in degrees; None for an image that stays as it is."""
        return rng.uniform(*self._ends) if rng.random() < self.prob else None

    def apply(self, image: np.ndarray, params: float | None) -> np.ndarray:
        """Return the turned image."""
        if params is None:
            return image
        return functional.rotate(image, params, self.interpolation, self.expand, self.center, self._fill)


@TRANSFORMS.register
class RandomRot90(Transform):
    """Turn the image counter-clockwise by 0, 90, 180 or 270 degrees, each as likely.

    YAML::

        - RandomRot90:
    """

    def draw(self, rng: SampleRng, image: np.ndarray) -> int:
        """Return the number of quarters."""
        return int(rng.integers(0, 4))

    def apply(self, image: np.ndarray, params: int) -> np.ndarray:
        """Return the turned image; height and width change places for an odd number of quarters."""
        return functional.rotate_quarters(image, params)
