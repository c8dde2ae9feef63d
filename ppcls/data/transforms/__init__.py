# SPDX-License-Identifier: Apache-2.0
"""Image operations; importing this package registers them."""

from ppcls.data.transforms.decode import DecodeImage
from ppcls.data.transforms.functional import decode_image
from ppcls.data.transforms.geometry import CropImage, RandCropImage, RandFlipImage, ResizeImage
from ppcls.data.transforms.tensor import NormalizeImage, ToCHWImage
from ppcls.data.transforms.transform import Transform

__all__ = [
    "CropImage",
    "DecodeImage",
    "NormalizeImage",
    "RandCropImage",
    "RandFlipImage",
    "ResizeImage",
    "ToCHWImage",
    "Transform",
    "decode_image",
]
