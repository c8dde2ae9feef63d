# SPDX-License-Identifier: Apache-2.0
"""How timm's operations get their arguments from a level, and from which of them its policies draw."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Scale(NamedTuple):
    """An operation and the size of its argument at a share of the level 10.

    The argument is ``around + size``, or where the sign is drawn ``around - size`` for every other image.
    """

    operation: str
    size: Callable[[float], float] | None = None
    signed: bool = False
    around: float = 0


def _factor(share: float) -> float:
    return share * 1.8 + 0.1


def _distance(share: float) -> float:
    return share * 0.9


def _threshold(share: float) -> int:
    return min(256, int(share * 256))


SCALES = {
    "auto_contrast": Scale("auto_contrast"),
    "equalize": Scale("equalize"),
    "invert": Scale("invert"),
    "rotate": Scale("rotate", lambda share: share * 30, signed=True),
    "posterize": Scale("posterize", lambda share: int(share * 4)),
    "posterize_increasing": Scale("posterize", lambda share: 4 - int(share * 4)),
    "posterize_original": Scale("posterize", lambda share: int(share * 4) + 4),
    "solarize": Scale("solarize", _threshold),
    "solarize_increasing": Scale("solarize", lambda share: 256 - _threshold(share)),
    "solarize_add": Scale("solarize_add", lambda share: min(128, int(share * 110))),
    "color": Scale("color", _factor),
    "color_increasing": Scale("color", _distance, signed=True, around=1),
    "contrast": Scale("contrast", _factor),
    "contrast_increasing": Scale("contrast", _distance, signed=True, around=1),
    "brightness": Scale("brightness", _factor),
    "brightness_increasing": Scale("brightness", _distance, signed=True, around=1),
    "sharpness": Scale("sharpness", _factor),
    "sharpness_increasing": Scale("sharpness", _distance, signed=True, around=1),
    "shear_x": Scale("shear_x", lambda share: share * 0.3, signed=True),
    "shear_y": Scale("shear_y", lambda share: share * 0.3, signed=True),
    "translate_x": Scale("translate_x", lambda share: share * 0.45, signed=True),
    "translate_y": Scale("translate_y", lambda share: share * 0.45, signed=True),
}

MIX_SCALES = {
    **SCALES,
    "translate_x": Scale("translate_x", lambda share: share * 0.3, signed=True),
    "translate_y": Scale("translate_y", lambda share: share * 0.3, signed=True),
}
"""Where several images are blended, moves are shorter."""

MOVES = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
"""The operations that sample the image at other places."""

RAND_WEIGHTS = {
    "auto_contrast": 0.025,
    "equalize": 0.005,
    "invert": 0.0,
    "rotate": 0.3,
    "posterize": 0.0,
    "solarize": 0.005,
    "solarize_add": 0.005,
    "color": 0.025,
    "contrast": 0.005,
    "brightness": 0.005,
    "sharpness": 0.025,
    "shear_x": 0.2,
    "shear_y": 0.2,
    "translate_x": 0.1,
    "translate_y": 0.1,
}
"""The operations of ``rand``, and how often each is drawn with ``w0``."""

MIX_NAMES = (
    *("auto_contrast", "color_increasing", "contrast_increasing", "brightness_increasing", "sharpness_increasing"),
    *("equalize", "rotate", "posterize_increasing", "solarize_increasing", "shear_x", "shear_y"),
    *("translate_x", "translate_y"),
)
"""The operations of ``augmix``."""


def increasing(name: str) -> str:
    """Return the name of the operation's kind that gets stronger with the level."""
    return f"{name}_increasing" if f"{name}_increasing" in SCALES else name
