# SPDX-License-Identifier: Apache-2.0
"""Run an exported model in a process of its own: ``python -m ppcls.deploy.trial DIRECTORY REQUEST.npz ANSWERS.npz``.

Nothing of the training side is used: graphs, weights and preprocessing come from the directory.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from ppcls.data.images import transform_image
from ppcls.deploy.bundle import ONNX_GRAPH, read_bundle
from ppcls.deploy.runtime import Predictor


def main(directory: str, request: str, answers: str) -> None:
    """Store the outputs of every engine for the images of ``request``, by the engine's name.

    Each image is a file's bytes (uint8 [N]), decoded (uint8 [H, W, 3]) or the model's input (float32 [1, C, H, W]).
    All images go in one batch, with the first a second time, then the first alone: N + 2 rows.
    """
    transforms = read_bundle(directory, import_modules=True).build_transforms()
    stored = np.load(request, allow_pickle=False)
    images = [_input(stored[name], transforms, name) for name in stored.files]
    batches = [np.concatenate([*images, images[0]]), images[0]]
    outputs = {}
    for runtime in ("paddle", "onnxruntime") if (Path(directory) / ONNX_GRAPH).exists() else ("paddle",):
        predictor = Predictor(directory, runtime)
        outputs[runtime] = np.concatenate([predictor(batch) for batch in batches])
        outputs[f"{runtime}.description"] = np.array(predictor.description)
    np.savez(answers, **outputs)


def _input(image: np.ndarray, transforms: list, name: str) -> np.ndarray:
    if image.dtype != np.uint8:
        return image
    return transform_image(image.tobytes() if image.ndim == 1 else image, transforms, name)[None]


if __name__ == "__main__":
    main(*sys.argv[1:])
