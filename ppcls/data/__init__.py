# SPDX-License-Identifier: Apache-2.0
"""The data path; importing this package registers its data sets, samplers, transforms and postprocesses."""

from ppcls.data.dataset import ClsDataset, ImageNetDataset
from ppcls.data.loader import Loader
from ppcls.data.postprocess import Topk
from ppcls.data.sampler import BatchSampler, DistributedBatchSampler, sample_rng
from ppcls.data.transforms import Transform, decode_image

__all__ = [
    "BatchSampler",
    "ClsDataset",
    "DistributedBatchSampler",
    "ImageNetDataset",
    "Loader",
    "Topk",
    "Transform",
    "decode_image",
    "sample_rng",
]
