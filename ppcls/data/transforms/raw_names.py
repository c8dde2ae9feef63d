# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's second names for the policies: there they take Pillow images, here every image is an array."""

from __future__ import annotations

from typing import Literal

from ppcls.config.registry import TRANSFORMS
from ppcls.data.transforms.auto_augment import AutoAugment, RandAugmentV4
from ppcls.data.transforms.rand_augment import RandAugment, RandAugmentV2, RandAugmentV3
from ppcls.data.transforms.timm_auto_augment import TimmAutoAugment


@TRANSFORMS.register
class RawImageNetPolicy(AutoAugment):
    """As `AutoAugment`.

    YAML::

        - RawImageNetPolicy:
    """


@TRANSFORMS.register
class RawRandAugment(RandAugment):
    """As `RandAugment`.

    YAML::

        - RawRandAugment: {num_layers: 2, magnitude: 5}
    """


@TRANSFORMS.register
class RawRandAugmentV2(RandAugmentV2):
    """As `RandAugmentV2`.

    YAML::

        - RawRandAugmentV2: {num_layers: 2, magnitude: 5}
    """


@TRANSFORMS.register
class RawRandAugmentV3(RandAugmentV3):
    """As `RandAugmentV3`.

    YAML::

        - RawRandAugmentV3: {num_layers: 2, magnitude: 3}
    """


@TRANSFORMS.register
class RawRandAugmentV4(RandAugmentV4):
    """As `RandAugmentV4`.

    YAML::

        - RawRandAugmentV4:
    """


@TRANSFORMS.register
class RawTimmAutoAugment(TimmAutoAugment):
    """As `TimmAutoAugment`, for all images.

    Args:
        config_str: the policy.
        interpolation: how a moved image is sampled; ``random`` draws bilinear or bicubic for each move.
        img_size: accepted for PaddleClas's files; all moves are relative to the image.
        mean: red, green and blue, 0..1, of what a moved image leaves empty.

    YAML::

        - RawTimmAutoAugment: {config_str: rand-m9-mstd0.5-inc1}
    """

    def __init__(
        self,
        config_str: str = "rand-m9-mstd0.5-inc1",
        interpolation: Literal["nearest", "bilinear", "bicubic", "random"] = "bicubic",
        img_size: int | list[int] = 224,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
    ) -> None:
        super().__init__(1.0, config_str, interpolation, img_size, mean)
