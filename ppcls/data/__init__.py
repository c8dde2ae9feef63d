# SPDX-License-Identifier: Apache-2.0
"""The data path; importing this package registers its data sets, samplers, transforms and postprocesses."""

from ppcls.data.cifar import Cifar10, Cifar100
from ppcls.data.image_folder import ImageFolder
from ppcls.data.list_file import ClsDataset, ImageNetDataset
from ppcls.data.loader import Loader
from ppcls.data.postprocess import Topk
from ppcls.data.rng import SampleRng
from ppcls.data.sampler import BatchSampler, DistributedBatchSampler
from ppcls.data.transforms import Transform, decode_image

__all__ = [
    "BatchSampler",
    "Cifar10",
    "Cifar100",
    "ClsDataset",
    "DistributedBatchSampler",
    "ImageFolder",
    "ImageNetDataset",
    "Loader",
    "Topk",
    "Transform",
    "decode_image",
    "SampleRng",
]
