# SPDX-License-Identifier: Apache-2.0
"""Image operations; importing this package registers them."""

from ppcls.data.transforms.area import CropWithPadding, RandomResizedCrop
from ppcls.data.transforms.color import ColorJitter, PCALighting, RandomGrayscale
from ppcls.data.transforms.crop import CropImage, CropImageAtRatio, RandCropImage, RandCropImageV2, RandomCropImage
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.functional import decode_image
from ppcls.data.transforms.geometry import Pad, RandFlipImage, RandomInterpolationAugment, ResizeImage
from ppcls.data.transforms.padding import Pad_paddle_vision, Padv2
from ppcls.data.transforms.rotation import RandomRot90, RandomRotation
from ppcls.data.transforms.tensor import Normalize, NormalizeImage, ToCHWImage, ToTensor
from ppcls.data.transforms.transform import Transform
from ppcls.data.transforms.vision import CenterCrop, RandomHorizontalFlip, Resize

__all__ = [
    "CenterCrop",
    "ColorJitter",
    "CropImage",
    "CropImageAtRatio",
    "CropWithPadding",
    "DecodeImage",
    "Normalize",
    "NormalizeImage",
    "PCALighting",
    "Pad",
    "Pad_paddle_vision",
    "Padv2",
    "RandCropImage",
    "RandCropImageV2",
    "RandFlipImage",
    "RandomCropImage",
    "RandomGrayscale",
    "RandomHorizontalFlip",
    "RandomInterpolationAugment",
    "RandomResizedCrop",
    "RandomRot90",
    "RandomRotation",
    "Resize",
    "ResizeImage",
    "ToCHWImage",
    "ToTensor",
    "Transform",
    "decode_image",
]
