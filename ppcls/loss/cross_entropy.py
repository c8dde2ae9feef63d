# SPDX-License-Identifier: Apache-2.0
"""Cross entropy between logits and labels or soft labels."""

from __future__ import annotations

from typing import Any, Literal

import paddle
import paddle.nn.functional as F
from paddle import Tensor

from ppcls.arch.output import logits_of
from ppcls.config.registry import LOSSES


@LOSSES.register
class CELoss(paddle.nn.Layer):
    """Softmax cross entropy, with label smoothing if asked for.

    Args:
        reduction: ``none`` keeps one value per sample, shape [N].
        epsilon: share of each label spread evenly over all classes, between 0 and 1
            (Szegedy et al., arXiv:1512.00567, section 7); 0 and null mean no smoothing.

    Raises:
        ValueError: ``epsilon`` negative, 1 or more.

    YAML::

        - CELoss: {weight: 1.0, epsilon: 0.1}
    """

    def __init__(self, reduction: Literal["mean", "sum", "none"] = "mean", epsilon: float | None = None) -> None:
        super().__init__()
        if epsilon is not None and not 0 <= epsilon < 1:
            raise ValueError(f"epsilon must be at least 0 and below 1 (0 or null: no label smoothing); got {epsilon}")
        self.reduction = reduction
        self.epsilon = epsilon or None

    def forward(self, output: Any, labels: Tensor) -> dict[str, Tensor]:
        """The loss under the name ``CELoss``.

        Args:
            output: what the model returned; its logits are [N, class_num].
            labels: int64 [N] or [N, 1], or soft labels [N, class_num] whose rows sum to 1.

        Raises:
            ValueError: ``labels`` is neither.
        """
        logits = logits_of(output)
        num_samples, class_num = logits.shape
        shape = list(labels.shape)
        if labels.is_floating_point() and shape == [num_samples, class_num]:
            soft_labels = labels
        elif not labels.is_floating_point() and shape in ([num_samples], [num_samples, 1]):
            labels = labels.reshape([num_samples])
            if self.epsilon is None:
                return {"CELoss": F.cross_entropy(logits, labels, reduction=self.reduction)}
            soft_labels = F.one_hot(labels, class_num)
        else:
            raise ValueError(
                f"labels of {labels.dtype} {shape} do not fit logits {[num_samples, class_num]}; "
                f"give int64 [{num_samples}], or soft labels [{num_samples}, {class_num}]"
            )
        # In half precision the shares of a thousand classes would no longer sum up to 1.
        logits = logits if logits.dtype == paddle.float64 else logits.astype("float32")
        soft_labels = soft_labels.astype(logits.dtype)
        if self.epsilon is not None:
            soft_labels = F.label_smooth(soft_labels, epsilon=self.epsilon)
        loss = F.cross_entropy(logits, soft_labels, soft_label=True, reduction=self.reduction)
        return {"CELoss": loss.reshape([num_samples]) if self.reduction == "none" else loss}
