# SPDX-License-Identifier: Apache-2.0
"""Image operations on many images of one size at a time: the same pixels as those of `functional`, one by one."""

from __future__ import annotations

import cv2
import numpy as np

from ppcls.data.transforms import functional


def crop(images: np.ndarray, tops: np.ndarray, lefts: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return of every image [N, H, W, C] the part from its own (top, left) on, [N, height, width, C]."""
    num, rows, columns, channels = images.shape
    lines = np.ascontiguousarray(images).reshape(num, rows, columns * channels)
    parts = np.lib.stride_tricks.sliding_window_view(lines, (height, width * channels), axis=(1, 2))
    return parts[np.arange(num), tops, lefts * channels].reshape(num, height, width, channels)


def flip(images: np.ndarray, code: int) -> np.ndarray:
    """Return every image [N, H, W, C] mirrored, by ``code`` as `functional.flip` has it."""
    if code == 1:
        return cv2.flip(_stacked(images), 1).reshape(images.shape) if len(images) else images
    return images[:, ::-1] if code == 0 else images[:, ::-1, ::-1]


def pad(images: np.ndarray, width: int, mode: str, fill: int) -> np.ndarray:
    """Return every image [N, H, W, C] with a border, as `functional.pad` does."""
    borders = [(0, 0), (width, width), (width, width), (0, 0)]
    if mode == "constant":
        num, height, columns, channels = images.shape
        padded = np.full((num, height + 2 * width, columns + 2 * width, channels), fill, images.dtype)
        padded[:, width : width + height, width : width + columns] = images
        return padded
    return np.pad(images, borders, mode)  # type: ignore[call-overload]


def change_brightness(images: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Return every uint8 image [N, H, W, 3] changed by its own factor, float64 [N]."""
    return _blended(images.astype(np.float32), np.float32(0), factors)


def change_contrast(images: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Return every uint8 image [N, H, W, 3] changed by its own factor, float64 [N]."""
    num, height, width, _ = images.shape
    means = functional.grey(_stacked(images)).reshape(num, -1).sum(axis=1, dtype=np.int64) / (height * width)
    bases = (means + 0.5).astype(np.int64).astype(np.float32).reshape(num, 1, 1, 1)
    return _blended(images.astype(np.float32), bases, factors)


def change_saturation(images: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Return every uint8 image [N, H, W, 3] changed by its own factor, float64 [N]."""
    greys = functional.grey(_stacked(images)).reshape(*images.shape[:3], 1).astype(np.float32)
    return _blended(images.astype(np.float32), greys, factors)


def turn_hue(images: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Return every uint8 image [N, H, W, 3] changed by its own turn, float64 [N]."""
    return np.stack([functional.turn_hue(image, turn) for image, turn in zip(images, turns)])


COLOR_CHANGES = {
    "brightness": change_brightness,
    "contrast": change_contrast,
    "saturation": change_saturation,
    "hue": turn_hue,
}
"""What a colour operation's name does to images, by their factors."""


def _blended(images: np.ndarray, bases: np.ndarray | np.float32, factors: np.ndarray) -> np.ndarray:
    """Between the bases (factor 0) and the images (1), rounded after each step as Pillow does; changes the images."""
    images -= bases
    images *= factors.astype(np.float32).reshape(-1, 1, 1, 1)
    images += bases
    return np.clip(images, 0, 255, out=images).astype(np.uint8)


def _stacked(images: np.ndarray) -> np.ndarray:
    """One above the other, they are one image."""
    num, height, width, channels = images.shape
    return images.reshape(num * height, width, channels)
