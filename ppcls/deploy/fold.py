# SPDX-License-Identifier: Apache-2.0
"""Normalization as a part of the graph, so that whoever asks the model sends bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ppcls.data.transforms.tensor import NormalizeImage, ToCHWImage
from ppcls.utils.errors import ConfigError


def split_normalization(transforms: Sequence[Any]) -> tuple[list[Any], NormalizeImage]:
    """The transforms before the normalization, which make uint8 [H, W, 3], and the normalization.

    Raises:
        ConfigError: they do not end in a normalization and the move of axes, which are what a graph can do.
    """
    *before, normalize, to_chw = [None, None, *transforms]
    is_foldable = isinstance(normalize, NormalizeImage) and isinstance(to_chw, ToCHWImage)
    if not is_foldable or normalize.order == "chw" or normalize.output_fp16 or normalize.channel_num != 3:
        raise ConfigError(
            "Global.fold_preprocess: Infer.transforms have to end in NormalizeImage (order: '') and ToCHWImage, which "
            "the graph then does; change them, or leave fold_preprocess out"
        )
    return before[2:], normalize
