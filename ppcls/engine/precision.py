# SPDX-License-Identifier: Apache-2.0
"""Mixed precision: autocast and loss scaling behind one face, whether it is on or off."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import numpy as np
import paddle
from paddle import nn

from ppcls.utils.errors import ConfigError


class Precision:
    """What a training step asks of number formats.

    Args:
        enabled: false makes everything here a pass-through in float32.
        level: ``O1`` or ``O2``.
        dtype: ``float16`` or ``bfloat16``.
        scale_loss: factor of the loss while gradients are computed.
        use_dynamic_loss_scaling: adapt the factor.
        use_promote: O2: run an operator in the widest type of its inputs.

    Raises:
        ConfigError: the current device does not compute in ``dtype``.
    """

    def __init__(
        self,
        enabled: bool = False,
        level: Literal["O1", "O2"] = "O1",
        dtype: Literal["float16", "bfloat16"] = "float16",
        scale_loss: float = 1.0,
        use_dynamic_loss_scaling: bool = False,
        use_promote: bool = False,
    ) -> None:
        self.enabled = enabled
        self.level = level
        self.dtype = dtype
        self.use_promote = use_promote
        if enabled:
            _require(dtype)
        self.scaler = paddle.amp.GradScaler(
            enable=enabled,
            init_loss_scaling=scale_loss,
            use_dynamic_loss_scaling=use_dynamic_loss_scaling,
        )

    def autocast(self) -> AbstractContextManager:
        """The context that forward and loss run in."""
        if not self.enabled:
            return nullcontext()
        return paddle.amp.auto_cast(level=self.level, dtype=self.dtype, use_promote=self.use_promote)

    def prepare(self, model: nn.Layer, optimizer: paddle.optimizer.Optimizer) -> None:
        """O2: turn the model's weights to the small type in place; the optimizer keeps full copies."""
        if self.enabled and self.level == "O2":
            paddle.amp.decorate(models=model, optimizers=optimizer, level="O2", dtype=self.dtype, master_weight=True)

    def backward(self, loss: paddle.Tensor) -> None:
        """Compute the gradients of the scaled loss."""
        self.scaler.scale(loss).backward()

    def update(self, optimizer: paddle.optimizer.Optimizer) -> None:
        """Unscale, let the optimizer update (it skips when a gradient overflowed), and clear the gradients."""
        self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.clear_grad()

    def state_dict(self) -> dict[str, Any]:
        """The loss scale and its counters, as plain numbers."""
        return {key: _plain(value) for key, value in self.scaler.state_dict().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the loss scale of a checkpoint; one that was saved with scaling off changes nothing."""
        if state and self.scaler.is_enable():
            restored: Any = {**state, "scale": np.array(state["scale"], np.float32).reshape(-1)}
            self.scaler.load_state_dict(restored)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _require(dtype: str) -> None:
    if paddle.get_device().startswith("cpu"):
        # Paddle 3.3.1: auto_cast and GradScaler only warn on a CPU, and all stays in float32.
        raise ConfigError(
            "AMP: Paddle has mixed precision on accelerators only, not on a CPU; write AMP.use_amp: false"
        )
    supported = {"float16": paddle.amp.is_float16_supported, "bfloat16": paddle.amp.is_bfloat16_supported}
    if not supported[dtype]():
        usable = [name for name, is_supported in supported.items() if is_supported()]
        instead = f"write AMP.dtype: {usable[0]}" if usable else "remove the AMP section"
        raise ConfigError(f"AMP.dtype: {paddle.get_device()} does not compute in {dtype}; {instead}")
