# SPDX-License-Identifier: Apache-2.0
"""A look at one stored image: whether it can be decoded, what it contains, what is unusual about it."""

from __future__ import annotations

import hashlib
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from ppcls.data.transforms.decoding import decode_image, read_file
from ppcls.data.transforms.image_header import read_header
from ppcls.utils.errors import DataError

_HEAD_BYTES = 1 << 16


class Look(NamedTuple):
    """What was found.

    Attributes:
        problem: why the image cannot be used; None if it can.
        digest: a number that stands for the content, 0..2^64-1; 0 where the content was not read.
        traits: the kinds of notes that hold of it, with blanks between.
        is_lasting: whether it follows from the content alone; a disk may well read tomorrow.
    """

    problem: str | None
    digest: int = 0
    traits: str = ""
    is_lasting: bool = True


def look_at(image: bytes | np.ndarray) -> Look:
    """Decode a stored image."""
    data = image.tobytes() if isinstance(image, np.ndarray) else image
    digest = int.from_bytes(hashlib.sha256(data).digest()[:8], "little")
    if isinstance(image, np.ndarray):
        return Look(None, digest)
    try:
        decode_image(image)
    except DataError as error:
        return Look(str(error).removeprefix("image: "), digest)
    return Look(None, digest, " ".join(_traits(image)))


def look_at_header(path: str) -> Look:
    """Read what an image file says of itself at its beginning."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
            try:
                read_header(head)
            except DataError:
                # What counts may stand behind a large preview, or at the end.
                read_header(head + file.read())
    except DataError as error:
        return Look(str(error).removeprefix("image: "))
    except OSError as error:
        return Look(f"cannot be read ({error.strerror or error})", is_lasting=False)
    return Look(None)


def digest_and_header(path: str) -> tuple[bytes, str | None]:
    """Return the sha256 of an image file, and why its header says that it is none; None if it is one."""
    try:
        data = read_file(path)
        read_header(data)
    except DataError as error:
        return b"", str(error).removeprefix("image: ").removeprefix(f"{path}: ")
    return hashlib.sha256(data).digest(), None


def _traits(data: bytes) -> list[str]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            found = {
                "animated": getattr(image, "is_animated", False),
                "cmyk": image.mode == "CMYK",
                "deep": image.mode.startswith("I"),
                "transparent": image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info,
                "turned": read_header(data).orientation != 1,
            }
    except (OSError, ValueError, SyntaxError, OverflowError, DataError, Image.DecompressionBombError):
        return []  # a kind that Pillow cannot read, and OpenCV can
    return [name for name, holds in found.items() if holds]
