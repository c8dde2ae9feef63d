# SPDX-License-Identifier: Apache-2.0
"""Images that a person points at: a file, a folder, or a list."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ppcls.data.transforms import functional
from ppcls.data.transforms.decode import DecodeImage
from ppcls.utils.errors import DataError
from ppcls.utils.local_copy import local_path

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")


def find_images(place: str | None, list_file: str | None = None) -> list[str]:
    """The paths that ``Infer.infer_imgs`` and ``Infer.infer_list`` mean, in a fixed order.

    Args:
        place: an image, or a folder searched through all its subfolders; a path or URL, also of an archive.
        list_file: a text file, or its URL, with one path a line (a label behind it is ignored), relative to ``place``.

    Raises:
        DataError: there is no such place, or no image in it.
    """
    place = local_path(place) if place else place
    if list_file:
        list_file = local_path(list_file)
        try:
            lines = Path(list_file).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"infer_list: {list_file}: cannot be read ({error})") from error
        paths = [_listed(place or "", line.strip()) for line in lines if line.strip()]
    elif not place:
        raise DataError("Infer.infer_imgs: not given; name an image or a folder of images")
    elif os.path.isdir(place):
        paths = sorted(str(path) for path in Path(place).rglob("*") if path.suffix.lower() in ENDINGS)
    elif os.path.exists(place):
        paths = [place]
    else:
        here = "" if os.path.isabs(place) else f"; paths start from the folder where the command runs, {os.getcwd()}"
        raise DataError(f"Infer.infer_imgs: {place}: no such file or folder{here}")
    if not paths:
        key = "Infer.infer_list" if list_file else "Infer.infer_imgs"
        raise DataError(f"{key}: {list_file or place}: no images ({', '.join(ENDINGS)}) in it")
    return paths


def _listed(place: str, line: str) -> str:
    """The path that a line begins with: all of it if there is such a file, otherwise without its last word."""
    whole = os.path.join(place, line)
    return whole if os.path.exists(whole) or len(line.split()) == 1 else os.path.join(place, line.rsplit(None, 1)[0])


def load_image(path: str, transforms: Sequence[Any], dtype: str = "float32") -> np.ndarray:
    """One image file through the transforms, as the model wants it: float32 [C, H, W], or uint8 [H, W, 3].

    Raises:
        DataError: it cannot be read, or does not suit the transforms; names it.
    """
    return transform_image(functional.read_file(path), transforms, path, dtype)


def transform_image(
    image: bytes | np.ndarray, transforms: Sequence[Any], name: str, dtype: str = "float32"
) -> np.ndarray:
    """One image through the transforms, as the model wants it: float32 [C, H, W], or uint8 [H, W, 3].

    Args:
        image: a file's bytes, or uint8 [H, W, 3] in the order R, G, B.
        transforms: the operations; one that decodes may be left out.
        name: what messages call the image.
        dtype: what the transforms have to end in; uint8 where the model normalizes by itself.

    Raises:
        DataError: it does not suit the transforms.
    """
    try:
        if not isinstance(image, np.ndarray) and not (transforms and isinstance(transforms[0], DecodeImage)):
            image = functional.decode_image(image)
        for transform in transforms:
            image = transform(image)
    except (DataError, ValueError) as error:
        reason = str(error).removeprefix("image: ")
        raise DataError(reason if reason.startswith(name) else f"{name}: {reason}") from error
    except cv2.error as error:
        raise DataError(f"{name}: does not suit the transforms ({error.err})") from error
    if image.ndim != 3 or image.dtype != dtype:
        raise DataError(f"{name}: the transforms end in {image.dtype} {list(image.shape)}, not in {dtype} [C, H, W]")
    return image
