# SPDX-License-Identifier: Apache-2.0
"""Mixed precision: autocast and loss scaling behind one face, whether they are on or off."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import paddle
from paddle import nn

from ppcls.engine.finite import all_finite
from ppcls.engine.loss_scale import LossScaler
from ppcls.utils.errors import ConfigError

SmallType = Literal["float16", "bfloat16"]
SMALL_TYPES: tuple[SmallType, ...] = ("float16", "bfloat16")


class Precision:
    """What a training step asks of number formats.

    Args:
        level: ``O0`` is float32, ``O1`` runs chosen operators in the small type, ``O2`` nearly all.
        dtype: the small type.
        use_promote: O2: run an operator in the widest type of its inputs.
        scaler: scales the loss; None leaves it as it is.

    Raises:
        ConfigError: the current device does not compute in ``dtype``.
    """

    def __init__(
        self,
        level: Literal["O0", "O1", "O2"] = "O0",
        dtype: SmallType = "float16",
        use_promote: bool = False,
        scaler: LossScaler | None = None,
    ) -> None:
        self.level = level
        self.dtype = dtype
        self.use_promote = use_promote
        self.scaler = scaler
        if level != "O0":
            self._require_small_type()

    def autocast(self) -> AbstractContextManager:
        """The context that forward and loss run in."""
        return nullcontext() if self.level == "O0" else self._cast_to(self.dtype)

    def prepare(self, model: nn.Layer, optimizer: paddle.optimizer.Optimizer) -> None:
        """O2: turn the model's weights to the small type in place; the optimizer keeps full copies."""
        if self.level == "O2":
            paddle.amp.decorate(models=model, optimizers=optimizer, level="O2", dtype=self.dtype, master_weight=True)

    def backward(self, loss: paddle.Tensor) -> None:
        """Compute the gradients of the scaled loss."""
        (self.scaler.scaled(loss) if self.scaler else loss).backward()

    def unscale(self, parameters: Iterable[paddle.Tensor]) -> bool:
        """Divide the gradients by the loss scale; whether those of this process are all finite."""
        if self.scaler:
            return self.scaler.unscale(parameters)
        return all_finite(parameter.grad for parameter in parameters if parameter.grad is not None)

    @property
    def forgives_overflow(self) -> bool:
        """Whether a gradient that is not finite may be due to the loss scale, and only leaves an update out."""
        return self.scaler is not None and self.scaler.scale > self.scaler.floor

    def update(self, optimizer: paddle.optimizer.Optimizer, has_overflow: bool = False) -> bool:
        """Let the optimizer clip and update unless a gradient overflowed, and clear the gradients.

        Args:
            optimizer: its gradients are unscaled.
            has_overflow: whether one of them is not finite, in any process: an update that only some of them leave
                out would part them for good.

        Returns:
            Whether the weights were updated.

        Raises:
            NumericsError: overflow after overflow, see `LossScaler`.
        """
        if not has_overflow:
            optimizer.step()
        optimizer.clear_grad()
        if self.scaler:
            self.scaler.adapt(not has_overflow)
        return not has_overflow

    def figures(self) -> dict[str, float]:
        """The present loss scale and the number of updates left out; nothing without scaling."""
        return {"loss_scale": self.scaler.scale, "skipped_updates": self.scaler.skipped} if self.scaler else {}

    def state_dict(self) -> dict[str, Any]:
        """The loss scale and its counters, as plain numbers."""
        return self.scaler.state_dict() if self.scaler else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the loss scale of a checkpoint; one that was saved with scaling off changes nothing."""
        if state and self.scaler:
            self.scaler.load_state_dict(state)

    def _cast_to(self, dtype: SmallType) -> AbstractContextManager:
        return paddle.amp.auto_cast(level=self.level, dtype=dtype, use_promote=self.use_promote)

    def _require_small_type(self) -> None:
        if not self._computes_in(self.dtype):
            usable = [name for name in SMALL_TYPES if name != self.dtype and self._computes_in(name)]
            instead = f"write AMP.dtype: {usable[0]}" if usable else "write AMP.use_amp: false"
            raise ConfigError(
                f"AMP: Paddle {paddle.__version__} does not compute in {self.dtype} on {paddle.get_device()}; "
                f"{instead}, or AMP.level: O0 for float32 with the same loss scaling"
            )

    def _computes_in(self, dtype: SmallType) -> bool:
        # Where a device cannot, autocast warns and all stays in float32 (Paddle 3.3.1 on a CPU): look at a product.
        ones = paddle.ones([8, 8])
        with warnings.catch_warnings(), paddle.no_grad():
            warnings.simplefilter("ignore")
            try:
                with self._cast_to(dtype):
                    return paddle.matmul(ones, ones).dtype == getattr(paddle, dtype)
            except RuntimeError:  # no such kernel
                return False
