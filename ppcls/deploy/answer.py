# SPDX-License-Identifier: Apache-2.0
"""Run an exported model in a process of its own: ``python -m ppcls.deploy.answer DIRECTORY REQUEST.npz ANSWER.npy``.

Nothing of the training side is used: graph, weights and preprocessing come from the directory.
"""

from __future__ import annotations

import sys

import numpy as np

from ppcls.data.images import load_image
from ppcls.deploy.runtime import Predictor, load_transforms


def main(directory: str, request: str, answer: str) -> None:
    """Answer the images of ``request`` (paths, or arrays [1, C, H, W]) and store the outputs [N, class_num]."""
    stored = np.load(request, allow_pickle=False)
    transforms = load_transforms(directory)
    images = [load_image(str(path), transforms)[None] for path in stored["paths"]]
    images += [stored[name] for name in stored.files if name != "paths"]
    predictor = Predictor(directory)
    np.save(answer, np.concatenate([predictor(image) for image in images]))


if __name__ == "__main__":
    main(*sys.argv[1:])
