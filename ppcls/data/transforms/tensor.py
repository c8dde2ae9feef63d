# SPDX-License-Identifier: Apache-2.0
"""From an image to the numbers that a model takes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from ppcls.config.registry import TRANSFORMS
from ppcls.data.transforms import functional
from ppcls.data.transforms.checks import refuse_keys
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
        for name, value in (("scale", self.scale), ("mean", self.mean), ("std", self.std)):
            if not np.isfinite(value).all():
                raise ValueError(f"{name} must be finite; got {value}")
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
        self._mean_chw = self._mean.reshape(3, 1, 1)
        self._std_chw = self._std.reshape(3, 1, 1)

    @property
    def takes_channel_first(self) -> bool:
        """Whether they are the layout that is normalized."""
        return self.order == "chw"

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

    def finish(self, images: Any) -> Any:
        """Return the normalized batch: the same numbers as image by image."""
        if isinstance(images, np.ndarray):
            normalized = functional.normalize(images, self._scale, self._mean_chw, self._std_chw)
            if self.channel_num == 4:
                normalized = np.pad(normalized, [(0, 0), (0, 1), (0, 0), (0, 0)])
            return normalized.astype(np.float16) if self.output_fp16 else normalized
        import paddle  # not above: a deployed model's images need no Paddle

        mean, std = paddle.to_tensor(self._mean_chw), paddle.to_tensor(self._std_chw)
        normalized = (images.astype("float32") * float(self._scale) - mean) / std
        if self.channel_num == 4:
            normalized = paddle.concat([normalized, paddle.zeros_like(normalized[:, :1])], axis=1)
        return normalized.astype("float16") if self.output_fp16 else normalized


@TRANSFORMS.register
class ToCHWImage(Transform):
    """Return the image [H, W, C] as [C, H, W].

    Data sets do this by themselves after the last operation; ``Infer.transforms`` lists it.

    YAML::

        - ToCHWImage:
    """

    @property
    def makes_channel_first(self) -> bool:
        """Always."""
        return True

    def apply(self, image: np.ndarray, params: Any) -> np.ndarray:
        """Return a view with the channels first."""
        return image.transpose(2, 0, 1)

    def finish(self, images: Any) -> Any:
        """Return the batch as it is: its channels are first already."""
        return images


@TRANSFORMS.register
class ToTensor(Transform):
    """Return uint8 levels as float32 in 0..1, channels first; what is floating point already keeps its values.

    Args:
        data_format: ``CHW`` for channels first; ``HWC`` leaves them last, and the data set moves them.
        keys: for inputs of several images, which do not exist here; leave it out.

    Raises:
        ValueError: another ``data_format``.

    YAML::

        - ToTensor:
    """

    def __init__(self, data_format: Literal["CHW", "HWC"] = "CHW", keys: Literal[None] = None) -> None:
        refuse_keys(keys)
        check_layout(data_format)
        self.data_format = data_format

    @property
    def takes_channel_first(self) -> bool:
        """Whether no axes are moved."""
        return self.data_format == "HWC"

    @property
    def makes_channel_first(self) -> bool:
        """Whether axes are moved."""
        return self.data_format == "CHW"

    def apply(self, image: np.ndarray, params: Any) -> np.ndarray:
        """Return the image in 0..1."""
        scaled = self.finish(image)
        return scaled.transpose(2, 0, 1) if self.data_format == "CHW" else scaled

    def finish(self, images: Any) -> Any:
        """Return the batch in 0..1."""
        if isinstance(images, np.ndarray):
            return np.divide(images, np.float32(255), dtype=np.float32) if images.dtype == np.uint8 else images
        return images.astype("float32") / 255.0 if "uint8" in str(images.dtype) else images


@TRANSFORMS.register
class Normalize(Transform):
    """Return ``(image - mean) / std`` as float32; usually behind `ToTensor`.

    Args:
        mean: one number for all channels, or one for each.
        std: as ``mean``, none of them zero.
        data_format: layout of the image: ``CHW`` for [3, H, W], ``HWC`` for [H, W, 3].
        to_rgb: turn the order of the channels around, for images decoded to B, G, R.
        keys: for inputs of several images, which do not exist here; leave it out.

    Raises:
        ValueError: ``mean`` or ``std`` neither one number nor three, or a zero in ``std``; when called, an image of
            another layout.

    YAML::

        - Normalize: {mean: [0.4914, 0.4822, 0.4465], std: [0.2471, 0.2435, 0.2616]}
    """

    def __init__(
        self,
        mean: float | list[float] = 0.0,
        std: float | list[float] = 1.0,
        data_format: Literal["CHW", "HWC"] = "CHW",
        to_rgb: bool = False,
        keys: Literal[None] = None,
    ) -> None:
        refuse_keys(keys)
        check_layout(data_format)
        self.mean = mean
        self.std = std
        self.data_format = data_format
        self.to_rgb = to_rgb
        self._mean_chw = _per_channel("mean", mean)
        self._std_chw = _per_channel("std", std)
        if not self._std_chw.all():
            raise ValueError(f"std must not contain zero; got {std}")

    @property
    def takes_channel_first(self) -> bool:
        """Whether they are the layout that is normalized."""
        return self.data_format == "CHW"

    def apply(self, image: np.ndarray, params: Any) -> np.ndarray:
        """Return the normalized image, in the layout it came in."""
        channel_axis = 0 if self.data_format == "CHW" else 2
        if image.ndim != 3 or image.shape[channel_axis] != 3:
            raise ValueError(
                f"Normalize with data_format {self.data_format} needs 3 channels on axis {channel_axis}; "
                f"the image is {list(image.shape)}; put ToTensor before it, or write the other data_format"
            )
        shape = (3, 1, 1) if self.data_format == "CHW" else (1, 1, 3)
        # PaddleClas: turns around the last axis, which with CHW mirrors the image instead.
        if self.to_rgb:
            image = np.flip(image, channel_axis)
        return (image - self._mean_chw.reshape(shape)) / self._std_chw.reshape(shape)

    @property
    def runs_on_device(self) -> bool:
        """Whether no channel goes to the place of another."""
        return not self.to_rgb

    def finish(self, images: Any) -> Any:
        """Return the normalized batch."""
        if isinstance(images, np.ndarray):
            return (images - self._mean_chw) / self._std_chw
        import paddle

        return (images.astype("float32") - paddle.to_tensor(self._mean_chw)) / paddle.to_tensor(self._std_chw)


def _per_channel(name: str, value: float | list[float]) -> np.ndarray:
    """What YAML writes as one number or three, as float32 [3, 1, 1]."""
    values = [value] * 3 if isinstance(value, (int, float)) else value
    if len(values) != 3:
        raise ValueError(f"{name} must be one number, or one for each of 3 channels; got {value}")
    return np.array(values, np.float32).reshape(3, 1, 1)


def check_layout(data_format: str) -> None:
    """Refuse an order of the axes that does not exist.

    Raises:
        ValueError: it does not.
    """
    if data_format not in ("CHW", "HWC"):
        raise ValueError(f"data_format must be CHW or HWC; got {data_format!r}")
