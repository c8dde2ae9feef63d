# SPDX-License-Identifier: Apache-2.0
"""Mixup and CutMix in one operation, for the batch or sample by sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from paddle import Tensor

from ppcls.config.registry import BATCH_OPS, Count, Share, Within
from ppcls.data.batch_ops import BatchOp
from ppcls.data.mixing import Box, Mix, draw_box, draw_box_within, mixed, soft_labels
from ppcls.data.rng import SampleRng

NotNegative = Annotated[float, Within(0)]


@BATCH_OPS.register
class MixupCutmixHybrid(BatchOp):
    """Mixup or CutMix; the first sample is mixed with the last, the second with the one before, and so on.

    Args:
        mixup_alpha: the share of a mixup comes from Beta(mixup_alpha, mixup_alpha); 0: no mixup.
        cutmix_alpha: the share that a cutmix leaves comes from Beta(cutmix_alpha, cutmix_alpha); 0: no cutmix.
        cutmix_minmax: shortest and longest side of the box, as parts of the image's, in place of ``cutmix_alpha``.
        prob: how often a batch (or sample, or pair) is mixed at all.
        switch_prob: how often with cutmix, when both are on.
        mode: draw once for the ``batch``, for each pair of samples (``pair``), or for each sample (``elem``).
        correct_lam: mix labels in the shares of the pixels really replaced; a box may reach over the edge.
        label_smoothing: share of each label spread evenly over all classes; leave ``epsilon`` of the loss out then.
        num_classes: number of classes; by default the model's, and no other is right.
        class_num: number of classes of the model.

    Raises:
        ValueError: neither mixup nor cutmix is on, ``cutmix_minmax`` is not two rising parts of 1, or
            ``num_classes`` is not the model's.

    YAML::

        - MixupCutmixHybrid: {mixup_alpha: 0.8, cutmix_alpha: 1.0, switch_prob: 0.5, label_smoothing: 0.1}
    """

    def __init__(
        self,
        mixup_alpha: NotNegative = 1.0,
        cutmix_alpha: NotNegative = 0.0,
        cutmix_minmax: list[float] | None = None,
        prob: Share = 1.0,
        switch_prob: Share = 0.5,
        mode: Literal["batch", "pair", "elem"] = "batch",
        correct_lam: bool = True,
        label_smoothing: Share = 0.1,
        # PaddleClas: 4, which fits a model of 4 classes only.
        num_classes: Count | None = None,
        *,
        class_num: int,
    ) -> None:
        super().__init__(class_num)
        if cutmix_minmax is not None and (len(cutmix_minmax) != 2 or not 0 <= cutmix_minmax[0] < cutmix_minmax[1] <= 1):
            raise ValueError(f"cutmix_minmax must be two rising numbers within 0..1; got {cutmix_minmax}")
        if not (mixup_alpha or cutmix_alpha or cutmix_minmax):
            raise ValueError("neither mixup_alpha nor cutmix_alpha is above 0, so nothing would be mixed")
        if num_classes not in (None, class_num):
            raise ValueError(f"num_classes is {num_classes}, but Arch.class_num is {class_num}; leave num_classes out")
        self.mixup_alpha = mixup_alpha
        self.cutmix_alpha = 1.0 if cutmix_minmax else cutmix_alpha
        self.cutmix_minmax = cutmix_minmax
        self.prob = prob
        self.switch_prob = switch_prob
        self.mode = mode
        self.correct_lam = correct_lam
        self.label_smoothing = label_smoothing

    def draw(self, rng: SampleRng, shape: Sequence[int]) -> Mix:
        """Return shares and boxes: one for the batch, or one for each sample."""
        num_samples, _, *sides = shape
        partners = range(num_samples)[::-1]
        if self.mode == "batch":
            share, is_cut = self._draw_share(rng)
            drawn = [self._draw_mix(rng, *sides, share, is_cut)]
        else:
            # PaddleClas: an odd batch is refused; here the sample in the middle is its own partner.
            num_draws = num_samples // 2 if self.mode == "pair" else num_samples
            shares = self._draw_shares(rng, num_draws)
            drawn = [self._draw_mix(rng, *sides, share, is_cut) for share, is_cut in shares]
            if self.mode == "pair":
                drawn += [(1.0, Box(), 1.0)] * (num_samples % 2) + drawn[::-1]
        own_shares, boxes, label_shares = map(list, zip(*drawn))
        return Mix(partners, own_shares, boxes, label_shares)

    def apply(self, images: Tensor, labels: Tensor, params: Mix) -> tuple[Tensor, Tensor]:
        """Return mixed images and soft labels, smoothed."""
        return mixed(images, soft_labels(labels, self.class_num, self.label_smoothing), params)

    def _draw_share(self, rng: SampleRng) -> tuple[float, bool]:
        """The share that stays, 1 for all of it, and whether the rest is cut out."""
        if rng.random() >= self.prob:
            return 1.0, False
        is_cut = rng.random() < self.switch_prob if self.mixup_alpha and self.cutmix_alpha else not self.mixup_alpha
        alpha = self.cutmix_alpha if is_cut else self.mixup_alpha
        return rng.beta(alpha, alpha), is_cut

    def _draw_shares(self, rng: SampleRng, num: int) -> list[tuple[float, bool]]:
        """As many of what `_draw_share` draws once, one kind of number after the other."""
        cut, mix = self.cutmix_alpha, self.mixup_alpha
        are_cut = [rng.random() < self.switch_prob if cut and mix else not mix for _ in range(num)]
        cut_shares = [rng.beta(cut, cut) if cut else 1.0 for _ in range(num)]
        mix_shares = [rng.beta(mix, mix) if mix else 1.0 for _ in range(num)]
        drawn = zip(are_cut, cut_shares, mix_shares)
        shares = [(cut_share if is_cut else mix_share, is_cut) for is_cut, cut_share, mix_share in drawn]
        return [share if rng.random() < self.prob else (1.0, False) for share in shares]

    def _draw_mix(
        self, rng: SampleRng, height: int, width: int, share: float, is_cut: bool
    ) -> tuple[float, Box, float]:
        """What each pixel keeps, the box, and what the label keeps."""
        if share == 1.0 or not is_cut:
            return share, Box(), share
        if self.cutmix_minmax:
            box = draw_box_within(rng, height, width, *self.cutmix_minmax)
        else:
            box = draw_box(rng, height, width, share)
        is_corrected = self.correct_lam or self.cutmix_minmax
        return 1.0, box, 1.0 - box.area / (height * width) if is_corrected else share
