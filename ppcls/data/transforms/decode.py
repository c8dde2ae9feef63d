# SPDX-License-Identifier: Apache-2.0
"""From the bytes of a file to an image."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from ppcls.config.registry import TRANSFORMS
from ppcls.data.transforms.decoding import decode_image
from ppcls.data.transforms.transform import Transform


@TRANSFORMS.register
class DecodeImage(Transform):
    """Decode a file's bytes to uint8 [H, W, 3]; an array passes as an image that is decoded already.

    Every image goes through `decode_image`, whatever the backend, so that training,
    evaluation and inference see the same pixels.

    Args:
        to_np: accepted for PaddleClas's files; images always travel as arrays.
        to_rgb: channels in the order R, G, B; otherwise B, G, R.
        channel_first: [3, H, W] instead of [H, W, 3].
        backend: accepted for PaddleClas's files; there is one decoder.
        draft: where the crop that follows will be shrunk at least twofold, a JPEG is decoded at a
            half, a quarter or an eighth of its size; faster, and the pixels differ a little. For training.

    Raises:
        DataError: when called, for bytes that are no intact image.

    YAML::

        - DecodeImage: {to_rgb: True, channel_first: False}
    """

    def __init__(
        self,
        to_np: bool = True,
        to_rgb: bool = True,
        channel_first: bool = False,
        backend: Literal["cv2", "pil"] = "cv2",
        draft: bool = False,
    ) -> None:
        self.to_np = to_np
        self.to_rgb = to_rgb
        self.channel_first = channel_first
        self.backend = backend
        self.draft = draft

    @property
    def makes_channel_first(self) -> bool:
        """Whether the YAML says so."""
        return self.channel_first

    def apply(self, image: bytes | np.ndarray, params: Any) -> np.ndarray:
        """Return the decoded image.

        Args:
            image: a file's bytes, or an array.
            params: at what part of its size a JPEG is decoded: 2 for a half, 4, 8; None for the whole.
        """
        # PaddleClas: an array is taken as BGR and reversed; here all arrays are RGB.
        decoded = image if isinstance(image, np.ndarray) else decode_image(image, reduce=params or 1)
        if not self.to_rgb:
            decoded = decoded[:, :, ::-1]
        return decoded.transpose(2, 0, 1) if self.channel_first else decoded

    def apply_many(self, images: np.ndarray, params: Any) -> np.ndarray:
        """Return images that are decoded already, [N, H, W, 3]."""
        if not self.to_rgb:
            images = images[..., ::-1]
        return images.transpose(0, 3, 1, 2) if self.channel_first else images
