# SPDX-License-Identifier: Apache-2.0
"""Colours of an image."""

from __future__ import annotations

import cv2
import numpy as np

from ppcls.config.registry import TRANSFORMS, Share
from ppcls.data.rng import BatchRng, SampleRng
from ppcls.data.transforms import functional, many
from ppcls.data.transforms.checks import check_share
from ppcls.data.transforms.transform import Transform

PCA_STRENGTH = 0.1
PCA_VALUES = np.array([0.2175, 0.0188, 0.0045], np.float32)
PCA_VECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]], np.float32)
"""The principal components of ImageNet's colours in 0..1, by AlexNet: one column each for R, G, B."""


@TRANSFORMS.register
class ColorJitter(Transform):
    """Change brightness, contrast, saturation and hue by random amounts, in random order.

    The factors of the first three are drawn uniformly, 1 leaves the image as it is; a strength of 0 leaves
    the operation out. Brightness blends with black, contrast with the mean grey, saturation with the grey image.

    Args:
        prob: share of the images that are changed; PaddleClas's default, 2, means all as well.
        brightness: strength, such as 0.4 for factors from 0.6 to 1.4, or the list [0.6, 1.4].
        contrast: as ``brightness``.
        saturation: as ``brightness``.
        hue: largest turn of the colour circle, 0..0.5 of it in either direction, or the list [-0.1, 0.1].

    Raises:
        ValueError: a negative strength, a hue beyond 0.5, or ends that are swapped.

    YAML::

        - ColorJitter: {brightness: 0.4, contrast: 0.4, saturation: 0.4}
    """

    def __init__(
        self,
        prob: float = 1.0,
        brightness: float | list[float] = 0.0,
        contrast: float | list[float] = 0.0,
        saturation: float | list[float] = 0.0,
        hue: float | list[float] = 0.0,
    ) -> None:
        if prob < 0:
            raise ValueError(f"prob must be 0 or more; got {prob}")
        self.prob = prob
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue
        ranges = {
            "brightness": _range("brightness", brightness),
            "contrast": _range("contrast", contrast),
            "saturation": _range("saturation", saturation),
            "hue": _range("hue", hue, middle=0.0, low=-0.5, high=0.5),
        }
        neutral = {"hue": (0.0, 0.0)}
        self._ranges = {name: ends for name, ends in ranges.items() if ends != neutral.get(name, (1.0, 1.0))}

    def draw(self, rng: SampleRng, image: np.ndarray) -> list[tuple[str, float]]:
        """Return the operations, each with its factor, in the order in which they are applied."""
        # Drawn for every image, changed or not: in a batch all have to go through their numbers at the same pace.
        is_changed = rng.random() < self.prob
        drawn = [(name, rng.uniform(low, high)) for name, (low, high) in self._ranges.items()]
        order = rng.permutation(len(drawn))
        return [drawn[place] for place in order] if is_changed else []

    def apply(self, image: np.ndarray, params: list[tuple[str, float]]) -> np.ndarray:
        """Return the changed image."""
        require_uint8(self, image)
        for name, factor in params:
            image = functional.COLOR_CHANGES[name](image, factor)
        return image

    def draw_many(self, rng: BatchRng, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return whether each image is changed [N], the factors [K, N] of the K operations, and their order [N, K]."""
        is_changed = rng.random() < self.prob
        factors = np.array([rng.uniform(low, high) for low, high in self._ranges.values()])
        return is_changed, factors, rng.permutation(len(factors))

    def apply_many(self, images: np.ndarray, params: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        """Return the changed images, in place."""
        require_uint8(self, images)
        is_changed, factors, order = params
        for place in range(len(factors)):
            for number, name in enumerate(self._ranges):
                chosen = np.flatnonzero(is_changed & (order[:, place] == number))
                if len(chosen):
                    images[chosen] = many.COLOR_CHANGES[name](images[chosen], factors[number, chosen])
        return images


@TRANSFORMS.register
class RandomGrayscale(Transform):
    """Take the colours from a share of the images, at random; they keep three channels.

    Args:
        p: share of the images that become grey.

    Raises:
        ValueError: a ``p`` outside 0..1.

    YAML::

        - RandomGrayscale: {p: 0.2}
    """

    def __init__(self, p: Share = 0.1) -> None:
        check_share("p", p)
        self.p = p

    def draw(self, rng: SampleRng, image: np.ndarray) -> bool:
        """Return whether this image becomes grey."""
        return rng.random() < self.p

    def apply(self, image: np.ndarray, params: bool) -> np.ndarray:
        """Return the image, grey if ``params``."""
        if not params:
            return image
        require_uint8(self, image)
        return cv2.merge([functional.grey(image)] * 3)


@TRANSFORMS.register
class PCALighting(Transform):
    """Shift the colours along the principal components of ImageNet's (Krizhevsky et al., 2012, section 4.1).

    One normally distributed number is drawn for each of three components, with a standard deviation of 0.1 of the
    component's own; all pixels of an image are shifted by the same.

    YAML::

        - PCALighting:
    """

    def draw(self, rng: SampleRng, image: np.ndarray) -> tuple[float, float, float]:
        """Return how far the image is shifted along each component."""
        return rng.normal(0.0, PCA_STRENGTH), rng.normal(0.0, PCA_STRENGTH), rng.normal(0.0, PCA_STRENGTH)

    def apply(self, image: np.ndarray, params: tuple[float, float, float]) -> np.ndarray:
        """Return the shifted image; one of floating point is taken as 0..1."""
        shift = (PCA_VECTORS * (np.array(params, np.float32) * PCA_VALUES)).sum(axis=1)
        if image.dtype != np.uint8:
            return image + shift
        # PaddleClas: adds what is meant for 0..1 to pixels of 0..255, which does nothing that could be seen.
        levels = np.rint(np.arange(256, dtype=np.float32)[:, None] + 255 * shift)
        return cv2.LUT(image, levels.clip(0, 255).astype(np.uint8)[None])


def require_uint8(op: Transform, image: np.ndarray) -> None:
    """Refuse an image whose levels are not 0..255 any more.

    Raises:
        ValueError: it is not uint8.
    """
    if image.dtype != np.uint8:
        raise ValueError(f"{type(op).__name__} works on uint8 images, not on {image.dtype}; put it before normalizing")


def _range(
    name: str, strength: float | list[float], middle: float = 1.0, low: float = 0.0, high: float = float("inf")
) -> tuple[float, float]:
    if not np.isfinite(strength).all():
        raise ValueError(f"{name} must be finite; got {strength}")
    if isinstance(strength, list):
        if len(strength) != 2 or not low <= strength[0] <= strength[1] <= high:
            raise ValueError(f"{name} must be [smallest, largest] within {low:g}..{high:g}; got {strength}")
        return strength[0], strength[1]
    if strength < 0 or middle + strength > high:
        raise ValueError(f"{name} must be 0 or more{f', at most {high:g}' if high < 1 else ''}; got {strength}")
    return max(low, middle - strength), middle + strength
