# SPDX-License-Identifier: Apache-2.0
"""From an image to the numbers that a model takes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from ppcls.config.registry import TRANSFORMS
from ppcls.data.transforms import functional
from ppcls.data.transforms.transform import Transform

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@TRANSFORMS.register
class NormalizeImage(Transform):
    """Return ``(image * scale - mean) / std`` as float32.

    Args:
        scale: factor that brings pixel values to the range of ``mean``; None means 1/255.
        mean: one number per channel; None means ImageNet's.
        std: one number per channel, none of them zero; None means ImageNet's.
        order: layout of the image: ``chw`` for [3, H, W]; ``hwc`` or an empty string for [H, W, 3].
        output_fp16: result in float16, computed in float32.
        channel_num: 4 appends a channel of zeros, which some GPU kernels are faster with.

    Raises:
        ValueError: ``mean`` or ``std`` not three numbers, or a zero in ``std``; when called, an image
            of another layout.

    YAML::

        - NormalizeImage: {scale: 1.0/255.0, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], order: ''}
    """

    def __init__(
        self,
        scale: float | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        order: Literal["chw", "hwc", ""] = "chw",
        output_fp16: bool = False,
        channel_num: Literal[3, 4] = 3,
    ) -> None:
        self.scale = 1.0 / 255.0 if scale is None else scale
        self.mean = list(IMAGENET_MEAN if mean is None else mean)
        self.std = list(IMAGENET_STD if std is None else std)
        self.order = order
        self.output_fp16 = output_fp16
        self.channel_num = channel_num
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3:
                raise ValueError(f"{name} must have one number for each of 3 channels; got {values}")
        if not all(self.std):
            raise ValueError(f"std must not contain zero; got {self.std}")
        if order not in ("chw", "hwc", ""):
            raise ValueError(f"order must be 'chw', 'hwc' or ''; got {order!r}")
        if channel_num not in (3, 4):
            raise ValueError(f"channel_num must be 3 or 4; got {channel_num}")
        shape = (3, 1, 1) if order == "chw" else (1, 1, 3)
        self._scale = np.float32(self.scale)
        self._mean = np.array(self.mean, np.float32).reshape(shape)
        self._std = np.array(self.std, np.float32).reshape(shape)

    def apply(self, image: np.ndarray, params: Any) -> np.ndarray:
        """Return the normalized image, in the layout it came in."""
        channel_axis = 0 if self.order == "chw" else 2
        if image.ndim != 3 or image.shape[channel_axis] != 3:
            raise ValueError(
                f"NormalizeImage with order {self.order!r} needs 3 channels on axis {channel_axis}; "
                f"the image is {list(image.shape)}"
            )
        normalized = functional.normalize(image, self._scale, self._mean, self._std)
        if self.channel_num == 4:
            padding = [(0, 0)] * 3
            padding[channel_axis] = (0, 1)
            normalized = np.pad(normalized, padding)
        return normalized.astype(np.float16) if self.output_fp16 else normalized


@TRANSFORMS.register
class ToCHWImage(Transform):
    """Return the image [H, W, C] as [C, H, W].

    Data sets do this by themselves after the last operation; ``Infer.transforms`` lists it.

    YAML::

        - ToCHWImage:
    """

    def apply(self, image: np.ndarray, params: Any) -> np.ndarray:
        """Return a view with the channels first."""
        return image.transpose(2, 0, 1)
