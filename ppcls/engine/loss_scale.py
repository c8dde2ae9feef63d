# SPDX-License-Identifier: Apache-2.0
"""Loss scaling: small gradients survive a small type, and an update that overflowed is left out.

Paddle's ``GradScaler`` does nothing on a CPU, turns itself off for dynamic scaling in bfloat16, and has no floor.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import paddle
from paddle import _C_ops

from ppcls.utils.errors import NumericsError
from ppcls.utils.logger import logger

CEILING = 2.0**24
"""Where doubling ends: what float16 would have rounded to 0 (below 2**-24) is 1 by then."""

MAX_IN_A_ROW = 100
"""Updates that may overflow one after the other at a fixed scale."""


class LossScaler:
    """A factor of the loss while gradients are computed; they are divided by it before clipping and update.

    Args:
        scale: the factor, or the first one. A power of two changes no bit of gradients that fit.
        is_dynamic: halve the factor after overflows, double it after a while without.
        floor: the least that halving leads to.
        incr_every_n_steps: updates without overflow after which the factor doubles.
        decr_every_n_nan_or_inf: overflows in a row after which it halves.

    Attributes:
        skipped: updates left out so far.
    """

    def __init__(
        self,
        scale: float = 1.0,
        is_dynamic: bool = False,
        floor: float = 1.0,
        incr_every_n_steps: int = 1000,
        decr_every_n_nan_or_inf: int = 1,
    ) -> None:
        self.scale = scale
        self.is_dynamic = is_dynamic
        self.floor = floor
        self.incr_every_n_steps = incr_every_n_steps
        self.decr_every_n_nan_or_inf = decr_every_n_nan_or_inf
        self.skipped = 0
        self._good = 0
        self._bad = 0
        self._stuck = 0

    def scaled(self, loss: paddle.Tensor) -> paddle.Tensor:
        """The loss times the factor, in float32."""
        return loss.astype("float32") * self.scale

    def unscale(self, parameters: Iterable[paddle.Tensor]) -> bool:
        """Divide the gradients in place; whether all of them are finite in this process."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        # Paddle's operator knows small types on accelerators only, and rounds to them before it looks.
        wide = [each if each.dtype == paddle.float32 else each.astype("float32") for each in gradients]
        has_overflow = False
        if wide:
            _, found = _C_ops.check_finite_and_unscale_(wide, paddle.to_tensor([self.scale], "float32"))
            has_overflow = bool(found.item())
        for gradient, copy in zip(gradients, wide):
            if gradient is not copy:
                gradient.set_value(copy.astype(gradient.dtype))
        return not has_overflow

    def adapt(self, is_finite: bool) -> None:
        """Count an update that was made, or left out, and choose the next factor.

        Raises:
            NumericsError: nothing but overflows, at a fixed factor.
        """
        if is_finite:
            self._bad = self._stuck = 0
            self._good += 1
            if self.is_dynamic and self._good >= self.incr_every_n_steps:
                self.scale = max(self.scale, min(self.scale * 2, CEILING))
                self._good = 0
            return
        before = self.scale
        self.skipped += 1
        self._good = 0
        self._bad += 1
        self._stuck += not self.is_dynamic
        if self.is_dynamic and self._bad >= self.decr_every_n_nan_or_inf:
            self.scale = max(before / 2, self.floor)
            self._bad = 0
        logger.warning(
            "[AMP] an update is left out: a gradient is not finite at loss scale %g; next loss scale %g, "
            "%d left out so far",
            *(before, self.scale, self.skipped),
        )
        if self._stuck >= MAX_IN_A_ROW:
            raise NumericsError(
                f"{MAX_IN_A_ROW} updates in a row have gradients that are not finite, at loss scale {before:g}; "
                "try a smaller learning rate or clip_global_norm, AMP.dtype: bfloat16, or a lower AMP.scale_loss"
            )

    def state_dict(self) -> dict[str, Any]:
        """The factor and its counters, as plain numbers."""
        counters = {"incr_count": self._good, "decr_count": self._bad, "skipped": self.skipped, "stuck": self._stuck}
        return {"scale": self.scale, **counters}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint; a fixed factor is the file's and stays. Reads what Paddle's scaler saved too."""
        if self.is_dynamic:
            self.scale = max(float(np.ravel(state["scale"])[0]), self.floor)
        self._good, self._bad = int(state["incr_count"]), int(state["decr_count"])
        self.skipped, self._stuck = int(state.get("skipped", 0)), int(state.get("stuck", 0))
