# SPDX-License-Identifier: Apache-2.0
"""How much a model computes for one image."""

from __future__ import annotations

from collections.abc import Sequence

import paddle
from paddle import nn

from ppcls.utils.errors import ConfigError


@paddle.no_grad()
def count_macs(model: nn.Layer, image_shape: Sequence[int]) -> int:
    """Multiply-accumulates of the convolutions and linear layers for one image of ``image_shape`` (C, H, W).

    Raises:
        ConfigError: the model does not take such an image.

    Papers that say "FLOPs" for DenseNet mean this number (He et al., arXiv:1512.03385, table 1, count the same way).
    """
    macs = 0

    def count(layer: nn.Layer, inputs: tuple, output: paddle.Tensor) -> None:
        nonlocal macs
        weights_each = layer.weight.size // layer.weight.shape[0 if isinstance(layer, nn.Conv2D) else 1]
        macs += output.size * weights_each

    layers = [layer for layer in model.sublayers() if isinstance(layer, (nn.Conv2D, nn.Linear))]
    hooks = [layer.register_forward_post_hook(count) for layer in layers]
    was_training = model.training
    model.eval()
    try:
        model(paddle.zeros([1, *image_shape]))
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"the model refuses an image of Global.image_shape {list(image_shape)}: {first_line(error)}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
        if was_training:
            model.train()
    return macs


def first_line(error: Exception) -> str:
    """What an exception of Paddle says, without the stack and the hints that follow."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("(")), lines[0] if lines else type(error).__name__)
