# SPDX-License-Identifier: Apache-2.0
"""Image operations; importing this package registers them."""

from ppcls.data.transforms.color import ColorJitter
from ppcls.data.transforms.crop import CropImage, RandCropImage, RandomCropImage
from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.functional import decode_image
from ppcls.data.transforms.geometry import Pad, RandFlipImage, ResizeImage
from ppcls.data.transforms.tensor import NormalizeImage, ToCHWImage
from ppcls.data.transforms.transform import Transform

__all__ = [
    "ColorJitter",
    "CropImage",
    "DecodeImage",
    "NormalizeImage",
    "Pad",
    "RandCropImage",
    "RandFlipImage",
    "RandomCropImage",
    "ResizeImage",
    "ToCHWImage",
    "Transform",
    "decode_image",
]
