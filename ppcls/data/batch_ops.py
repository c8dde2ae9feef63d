# SPDX-License-Identifier: Apache-2.0
"""Operations on whole batches, where the model runs: mixup and its like."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, Any

from paddle import Tensor

from ppcls.config.registry import BATCH_OPS, Block, Call, EachKey, Share
from ppcls.data.mixing import Box, Mix, draw_box, mixed, soft_labels
from ppcls.data.rng import SampleRng
from ppcls.utils.logger import logger


class BatchOp:
    """One operation on a batch: `draw` takes all its randomness, `apply` does the work on the batch's device.

    Args:
        class_num: number of classes of the model.
    """

    def __init__(self, class_num: int) -> None:
        self.class_num = class_num

    def draw(self, rng: SampleRng, shape: Sequence[int]) -> Any:
        """Return the parameters that `apply` needs for a batch of images [N, C, H, W]."""
        raise NotImplementedError

    def apply(self, images: Tensor, labels: Tensor, params: Any) -> tuple[Tensor, Tensor]:
        """Return new images, and labels as shares of classes, float32 [N, class_num].

        Args:
            images: float32 [N, C, H, W].
            labels: int64 [N], or soft labels [N, class_num].
            params: from `draw`.
        """
        return mixed(images, soft_labels(labels, self.class_num), params)

    def __call__(self, images: Tensor, labels: Tensor, rng: SampleRng) -> tuple[Tensor, Tensor]:
        """Draw and apply."""
        return self.apply(images, labels, self.draw(rng, images.shape))

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if name != "class_num")
        return f"{type(self).__name__}({settings})"


class BatchOps:
    """Operations one after the other, with random numbers of their own for each batch.

    Args:
        ops: the operations.
        class_num: number of classes of the model.
        seed: of the run.
        rank: this process; each mixes its own share of the global batch.
    """

    def __init__(self, ops: Sequence[BatchOp], class_num: int, seed: int, rank: int = 0) -> None:
        self.ops = list(ops)
        self.class_num = class_num
        self.seed = seed
        self.rank = rank

    def __call__(self, images: Tensor, labels: Tensor, epoch: int, batch: int) -> tuple[Tensor, Tensor]:
        """Return new images and soft labels, float32 [N, class_num].

        Args:
            images: float32 [N, C, H, W].
            labels: int64 [N].
            epoch: from 1 on.
            batch: of the epoch, from 0 on.
        """
        rng = batch_rng(self.seed, epoch, batch, self.rank)
        labels = soft_labels(labels, self.class_num)
        for op in self.ops:
            images, labels = op(images, labels, rng)
        return images, labels


def batch_rng(seed: int, epoch: int, batch: int, rank: int) -> SampleRng:
    """Return the random numbers of a batch; no sample draws the same: the highest bit of an index is never set."""
    return SampleRng(seed, epoch, 2**63 | rank << 40 | batch)


@BATCH_OPS.register
class MixupOperator(BatchOp):
    """Mix each sample with another of its batch, all in one share (Zhang et al., arXiv:1710.09412).

    Args:
        class_num: number of classes of the model.
        alpha: the share comes from Beta(alpha, alpha): the larger, the nearer to one half.

    Raises:
        ValueError: ``alpha`` not above 0.

    YAML::

        - MixupOperator: {alpha: 0.2}
    """

    def __init__(self, class_num: int, alpha: float = 1.0) -> None:
        super().__init__(class_num)
        self.alpha = positive("alpha", alpha)

    def draw(self, rng: SampleRng, shape: Sequence[int]) -> Mix:
        """Return the partners and the share."""
        partners = rng.permutation(shape[0])
        share = rng.beta(self.alpha, self.alpha)
        return Mix(partners, [share], [Box()], [share])


@BATCH_OPS.register
class CutmixOperator(BatchOp):
    """Put a box of another sample's pixels into each, the same box for all (Yun et al., arXiv:1905.04899).

    The labels are mixed in the shares of the pixels that were really replaced: a box may reach over the edge.

    Args:
        class_num: number of classes of the model.
        alpha: the share that stays outside the box comes from Beta(alpha, alpha).

    Raises:
        ValueError: ``alpha`` not above 0.

    YAML::

        - CutmixOperator: {alpha: 1.0}
    """

    def __init__(self, class_num: int, alpha: float = 0.2) -> None:
        super().__init__(class_num)
        self.alpha = positive("alpha", alpha)

    def draw(self, rng: SampleRng, shape: Sequence[int]) -> Mix:
        """Return the partners and the box."""
        num_samples, _, height, width = shape
        partners = rng.permutation(num_samples)
        box = draw_box(rng, height, width, rng.beta(self.alpha, self.alpha))
        return Mix(partners, [1.0], [box], [1.0 - box.area / (height * width)])


@dataclass(frozen=True)
class SampledOp:
    """One choice of `OpSampler`; the operation's own parameters stand in the same block.

    Args:
        op: the operation that the key names.
        prob: how often it is chosen.
    """

    op: Annotated[Call, Block(BATCH_OPS, inline=True, runtime=("class_num",))]
    prob: Share = 0.0


@BATCH_OPS.register
class OpSampler(BatchOp):
    """One of several operations, drawn anew for each batch, or none of them.

    Args:
        ops: operations by name, each with its own parameters and ``prob``; what the probabilities leave
            to 1 is how often a batch stays as it is.
        class_num: number of classes of the model.

    Raises:
        ValueError: no operation, or the probabilities sum up to more than 1.

    YAML::

        - OpSampler:
            MixupOperator: {alpha: 0.8, prob: 0.5}
            CutmixOperator: {alpha: 1.0, prob: 0.5}
    """

    def __init__(self, ops: Annotated[list[SampledOp], EachKey()], class_num: int) -> None:
        super().__init__(class_num)
        if not ops:
            raise ValueError("name at least one operation, such as MixupOperator: {alpha: 0.2, prob: 0.5}")
        for each in ops:
            if not each.prob:
                logger.warning("%s has prob 0, so it is never chosen", each.op.name)
        self.ops: list[BatchOp] = [each.op(class_num=class_num) for each in ops]
        self.ends = list(accumulate(each.prob for each in ops))
        if self.ends[-1] > 1 + 1e-9:
            raise ValueError(f"the probabilities sum up to {self.ends[-1]:g}, more than 1")

    def draw(self, rng: SampleRng, shape: Sequence[int]) -> tuple[int, Any]:
        """Return the number of the operation and its parameters; the number behind the last means none."""
        chosen = bisect.bisect_right(self.ends, rng.random())
        return chosen, self.ops[chosen].draw(rng, shape) if chosen < len(self.ops) else None

    def apply(self, images: Tensor, labels: Tensor, params: tuple[int, Any]) -> tuple[Tensor, Tensor]:
        """Return what the chosen operation gives; without one the images as they are."""
        chosen, op_params = params
        # PaddleClas: a batch without an operation has whole numbers for labels, the next one shares.
        labels = soft_labels(labels, self.class_num)
        return self.ops[chosen].apply(images, labels, op_params) if chosen < len(self.ops) else (images, labels)


def positive(name: str, value: float) -> float:
    """Return a setting that has to be above 0.

    Raises:
        ValueError: it is not.
    """
    if value <= 0:
        raise ValueError(f"{name} must be above 0; got {value:g}")
    return value
