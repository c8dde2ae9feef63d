# SPDX-License-Identifier: Apache-2.0
"""Decoding no more of a JPEG than the crop behind it needs."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from ppcls.data.rng import SampleRng
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.image_header import read_header
from ppcls.data.transforms.jpeg_rows import may_be_cut, only_rows, upper_rows
from ppcls.utils.stderr import can_be_quiet, quiet


@runtime_checkable
class DraftCrop(Protocol):
    """A crop that can be drawn before the image is decoded, and be cut out of a smaller copy of it."""

    def draw(self, rng: SampleRng, image: np.ndarray) -> object:
        """Return an area of the image, of which only the shape is looked at."""

    def reduction(self, params: object) -> int:
        """Return by how much the image may shrink (1, 2, 4 or 8) so that the area is no smaller than the result."""

    def scaled(self, params: object, vertical: float, horizontal: float) -> object:
        """Return the area in an image that is so many times as high and as wide."""

    def rows(self, params: object) -> tuple[int, int]:
        """Return the first row of the area, and the one behind its last."""

    def moved_up(self, params: object, num_rows: int) -> object:
        """Return the area in an image that lacks so many rows at its top."""

    def apply(self, image: np.ndarray, params: object) -> np.ndarray:
        """Return the area, scaled to the size wanted."""


def decode_and_crop(data: bytes, decode: DecodeImage, crop: DraftCrop, rng: SampleRng) -> np.ndarray:
    """Return what `crop` makes of an encoded image, of which `decode` decodes only what is needed for it.

    The same area is drawn as after a full decode. With ``draft``, an area that is shrunk at least twofold is decoded at
    a reduced scale; otherwise the pixels are the same too: rows above and below the area are left out where that is
    possible.

    Raises:
        DataError: it is no intact image.
    """
    if not decode.draft and not may_be_cut(data):
        image = decode.apply(data, 1)
        return crop.apply(image, crop.draw(rng, image))
    header = read_header(data)
    is_turned = header.orientation > 4
    height, width = (header.width, header.height) if is_turned else (header.height, header.width)
    # An array of that shape without pixels.
    params = crop.draw(rng, np.broadcast_to(np.uint8(0), (height, width, 3)))
    reduction = crop.reduction(params) if decode.draft and header.kind == "JPEG" else 1
    top, bottom = crop.rows(params)
    if header.kind == "JPEG" and header.orientation == 1:
        if reduction == 1 and (part := only_rows(data, top, bottom)) is not None:
            data, num_rows_above = part
            params = crop.moved_up(params, num_rows_above)
        elif decode.draft and can_be_quiet():
            with quiet():
                image = decode.apply(upper_rows(data, bottom, reduction) or data, reduction)
            return crop.apply(image, _reduced(crop, params, reduction, height, width))
    return crop.apply(decode.apply(data, reduction), _reduced(crop, params, reduction, height, width))


def _reduced(crop: DraftCrop, params: object, reduction: int, height: int, width: int) -> object:
    """The area in an image of which each side is a part of this size, rounded up."""
    if reduction == 1:
        return params
    return crop.scaled(params, -(-height // reduction) / height, -(-width // reduction) / width)
