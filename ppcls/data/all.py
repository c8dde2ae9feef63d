# SPDX-License-Identifier: Apache-2.0
"""All of the data path; importing this registers its data sets, samplers, transforms and postprocesses."""

from ppcls.data.batch_ops import BatchOps, CutmixOperator, MixupOperator, OpSampler
from ppcls.data.cifar import Cifar10, Cifar100
from ppcls.data.fmix import FmixOperator
from ppcls.data.identity_sampler import PKSampler
from ppcls.data.image_folder import ImageFolder
from ppcls.data.list_file import ClsDataset, ImageNetDataset
from ppcls.data.loader import Loader
from ppcls.data.mixup_cutmix import MixupCutmixHybrid
from ppcls.data.multi_scale import MultiScaleDataset, MultiScaleSampler
from ppcls.data.packed import PackedDataset
from ppcls.data.postprocess import Topk
from ppcls.data.repeated_sampler import RASampler
from ppcls.data.rng import SampleRng
from ppcls.data.sampler import BatchSampler, DistributedBatchSampler
from ppcls.data.transforms import Transform, decode_image

__all__ = [
    "BatchOps",
    "BatchSampler",
    "Cifar10",
    "Cifar100",
    "ClsDataset",
    "CutmixOperator",
    "DistributedBatchSampler",
    "FmixOperator",
    "ImageFolder",
    "ImageNetDataset",
    "Loader",
    "MixupCutmixHybrid",
    "MixupOperator",
    "MultiScaleDataset",
    "MultiScaleSampler",
    "OpSampler",
    "PKSampler",
    "PackedDataset",
    "RASampler",
    "Topk",
    "Transform",
    "decode_image",
    "SampleRng",
]
