# SPDX-License-Identifier: Apache-2.0
"""What an exported model is asked before it is published; the trained model is asked the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BATCHES = (1, 3, 8)
SCALES = (1e-2, 50.0)
"""Factors of the model's input, beside 1: an epsilon that was lost shows at the small one, an overflow at the large."""

OTHER_SIZE = 32
"""Pixels by which images are larger in the case that asks for another size."""


def cases(images: Sequence[np.ndarray], is_size_free: bool = False) -> dict[str, np.ndarray]:
    """Batches by the names of their cases.

    Args:
        images: of the graph's input, without a batch axis, at least one; float32 [C, H, W] or uint8 [H, W, 3].
        is_size_free: the graph takes any height and width, and the images may differ in them.
    """
    alike = [image for image in images if image.shape == images[0].shape]
    largest = max(BATCHES)
    # Fewer images than the largest batch are repeated in it.
    first = np.stack([alike[number % len(alike)] for number in range(largest)])
    asked = {f"batch of {size}": first[:size] for size in BATCHES}
    if first.dtype == np.float32:  # of bytes there is no other scale
        asked.update({f"batch of {largest}, times {scale:g}": first * np.float32(scale) for scale in SCALES})
    if is_size_free:
        height, width = (1, 2) if first.dtype == np.float32 else (0, 1)
        wider = first[0]
        for axis in (height, width):
            size = wider.shape[axis] + OTHER_SIZE
            wider = np.take(wider, np.arange(size) % wider.shape[axis], axis)
        asked["another size"] = wider[None]
    groups: dict[tuple[int, ...], list[np.ndarray]] = {}
    for image in images:
        groups.setdefault(image.shape, []).append(image)
    number = 0
    for group in groups.values():
        for start in range(0, len(group), largest):
            batch = np.stack(group[start : start + largest])
            asked[f"images {number + 1} to {number + len(batch)}"] = batch
            number += len(batch)
    return asked
