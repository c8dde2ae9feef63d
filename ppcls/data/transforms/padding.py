# SPDX-License-Identifier: Apache-2.0
"""Images made larger: to a size, or by borders of their own widths."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from ppcls.config.registry import TRANSFORMS, Count
from ppcls.data.transforms import functional
from ppcls.data.transforms.checks import Level, Pixels, refuse_keys, three_levels
from ppcls.data.transforms.geometry import width_height
from ppcls.data.transforms.transform import Transform


@TRANSFORMS.register
class Padv2(Transform):
    """Widen the image to a size, or to the next multiple of a length.

    Args:
        size: width and height in pixels: one number for a square, or the list [width, height]; None for the next
            multiple of ``size_divisor``.
        size_divisor: in pixels.
        pad_mode: where the image comes to lie: 0 left and top, 1 in the middle, 2 right and bottom, -1 at ``offsets``.
        offsets: first column and first row of the image, [x, y], with ``pad_mode: -1``.
        fill_value: value of the new pixels, 0..255, rounded: one number, or [R, G, B].

    Raises:
        ValueError: a length below 1, ``offsets`` without ``pad_mode: -1`` or the other way round, or a value that
            no pixel can have; when called, an image larger than ``size``.

    YAML::

        - Padv2: {size: [276, 212], pad_mode: 1, fill_value: 0}
    """

    def __init__(
        self,
        size: int | list[int] | None = None,
        size_divisor: Count = 32,
        pad_mode: Literal[-1, 0, 1, 2] = 0,
        offsets: tuple[Pixels, Pixels] | None = None,
        fill_value: Level | tuple[Level, Level, Level] = (127.5, 127.5, 127.5),
    ) -> None:
        if size_divisor < 1:
            raise ValueError(f"size_divisor must be at least 1; got {size_divisor}")
        if pad_mode not in (-1, 0, 1, 2):
            raise ValueError(f"pad_mode must be -1, 0, 1 or 2; got {pad_mode}")
        if (pad_mode == -1) != (offsets is not None):
            raise ValueError(f"offsets go with pad_mode -1; got pad_mode {pad_mode} and offsets {offsets}")
        if offsets is not None and (len(offsets) != 2 or min(offsets) < 0):
            raise ValueError(f"offsets must be [x, y], each at least 0; got {offsets}")
        self.size = size
        self.size_divisor = size_divisor
        self.pad_mode = pad_mode
        self.offsets = offsets
        self.fill_value = fill_value
        # PaddleClas: without a size it refuses to start, against its own documentation.
        self._width_height = None if size is None else width_height(size)
        self._fill = three_levels("fill_value", fill_value)

    def apply(self, image: np.ndarray, params: Any) -> np.ndarray:
        """Return the larger image; the image itself where there is nothing to add."""
        height, width = image.shape[:2]
        by = self.size_divisor
        new_width, new_height = self._width_height or (-(-width // by) * by, -(-height // by) * by)
        right, bottom = new_width - width, new_height - height
        left, top = {0: (0, 0), 1: (right // 2, bottom // 2), 2: (right, bottom)}.get(self.pad_mode) or self.offsets
        right, bottom = right - left, bottom - top
        if min(right, bottom) < 0:
            at = f" from ({left}, {top}) on" if self.pad_mode == -1 else ""
            raise ValueError(
                f"Padv2 makes images {new_width} x {new_height} (width x height), and one of {width} x {height} does "
                f"not fit into that{at}; give a larger size, or put ResizeImage before it"
            )
        if not (left or top or right or bottom):
            return image
        # PaddleClas: float32; here an image stays uint8 until it is normalized.
        return functional.pad_sides(image, (left, top, right, bottom), "constant", self._fill)


@TRANSFORMS.register
class Pad_paddle_vision(Transform):
    """Widen the image by a border whose sides may differ.

    Args:
        padding: width of the border in pixels: one number, [left and right, top and bottom], or
            [left, top, right, bottom].
        fill: value of the new pixels, 0..255, with ``constant``: one number, or [R, G, B].
        padding_mode: as in `Pad`.
        keys: as in `Resize`.

    Raises:
        ValueError: a negative width, neither 1, 2 nor 4 of them, or a value that no pixel can have.

    YAML::

        - Pad_paddle_vision: {padding: [4, 2], padding_mode: reflect}
    """

    def __init__(
        self,
        padding: Pixels | list[Pixels],
        fill: Level | tuple[Level, Level, Level] = 0,
        padding_mode: Literal["constant", "edge", "reflect", "symmetric"] = "constant",
        keys: Literal[None] = None,
    ) -> None:
        refuse_keys(keys)
        if padding_mode not in functional.BORDERS:
            raise ValueError(f"padding_mode must be one of {', '.join(functional.BORDERS)}; got {padding_mode!r}")
        sides = [padding] * 4 if isinstance(padding, int) else list(padding) * (2 if len(padding) == 2 else 1)
        if len(sides) != 4 or min(sides) < 0:
            raise ValueError(
                "padding must be one width, [left and right, top and bottom] or [left, top, right, bottom], "
                f"each at least 0; got {padding}"
            )
        self.padding = padding
        self.fill = fill
        self.padding_mode = padding_mode
        self._sides = tuple(sides)
        self._fill = three_levels("fill", fill)

    def apply(self, image: np.ndarray, params: Any) -> np.ndarray:
        """Return the image with its border."""
        return functional.pad_sides(image, self._sides, self.padding_mode, self._fill)
