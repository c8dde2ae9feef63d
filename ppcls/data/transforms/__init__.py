# SPDX-License-Identifier: Apache-2.0
"""Image operations; importing this package registers them."""

from ppcls.data.transforms.area import CropWithPadding, RandomResizedCrop
from ppcls.data.transforms.aug_mix import AugMix
from ppcls.data.transforms.auto_augment import AutoAugment, RandAugmentV4
from ppcls.data.transforms.color import ColorJitter, PCALighting, RandomGrayscale
from ppcls.data.transforms.crop import CropImage, CropImageAtRatio, RandCropImage, RandCropImageV2, RandomCropImage
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.erasing import Cutout, RandomErasing
from ppcls.data.transforms.functional import decode_image
from ppcls.data.transforms.geometry import Pad, RandFlipImage, RandomInterpolationAugment, ResizeImage
from ppcls.data.transforms.hiding import GridMask, HideAndSeek
from ppcls.data.transforms.padding import Pad_paddle_vision, Padv2
from ppcls.data.transforms.rand_augment import RandAugment, RandAugmentV2, RandAugmentV3
from ppcls.data.transforms.random_apply import RandomApply
from ppcls.data.transforms.raw_names import (
    RawImageNetPolicy,
    RawRandAugment,
    RawRandAugmentV2,
    RawRandAugmentV3,
    RawRandAugmentV4,
    RawTimmAutoAugment,
)
from ppcls.data.transforms.rotation import RandomRot90, RandomRotation
from ppcls.data.transforms.tensor import Normalize, NormalizeImage, ToCHWImage, ToTensor
from ppcls.data.transforms.timm_auto_augment import TimmAutoAugment
from ppcls.data.transforms.transform import Transform
from ppcls.data.transforms.vision import CenterCrop, RandomHorizontalFlip, Resize

__all__ = [
    "AugMix",
    "AutoAugment",
    "CenterCrop",
    "ColorJitter",
    "CropImage",
    "CropImageAtRatio",
    "CropWithPadding",
    "Cutout",
    "DecodeImage",
    "GridMask",
    "HideAndSeek",
    "Normalize",
    "NormalizeImage",
    "PCALighting",
    "Pad",
    "Pad_paddle_vision",
    "Padv2",
    "RandAugment",
    "RandAugmentV2",
    "RandAugmentV3",
    "RandAugmentV4",
    "RandCropImage",
    "RandCropImageV2",
    "RandFlipImage",
    "RandomApply",
    "RandomCropImage",
    "RandomErasing",
    "RandomGrayscale",
    "RandomHorizontalFlip",
    "RandomInterpolationAugment",
    "RandomResizedCrop",
    "RandomRot90",
    "RandomRotation",
    "RawImageNetPolicy",
    "RawRandAugment",
    "RawRandAugmentV2",
    "RawRandAugmentV3",
    "RawRandAugmentV4",
    "RawTimmAutoAugment",
    "Resize",
    "ResizeImage",
    "TimmAutoAugment",
    "ToCHWImage",
    "ToTensor",
    "Transform",
    "decode_image",
]
