# SPDX-License-Identifier: Apache-2.0
"""Ask an exported model in a process of its own: ``python -m ppcls.deploy.trial DIRECTORY REQUEST ANSWERS RUNTIME...``.

Nothing of the training side is used: graphs, weights and preprocessing come from the directory.
"""

from __future__ import annotations

import sys

import numpy as np

from ppcls.data.images import transform_image
from ppcls.deploy.bundle import read_bundle
from ppcls.deploy.cases import cases
from ppcls.deploy.latency import latencies
from ppcls.deploy.runtime import Predictor


def main(directory: str, request: str, answers: str, *runtimes: str) -> None:
    """Store what every engine answers to each case of the images of ``request``, and how long it takes for one.

    Each image is a file's bytes (uint8 [N]), decoded (uint8 [H, W, 3]) or the graph's input (float32 [C, H, W]).
    """
    bundle = read_bundle(directory, import_modules=True)
    transforms = bundle.build_transforms()
    stored = np.load(request, allow_pickle=False)
    images = [_input(stored[name], transforms, name, bundle.graph.dtype) for name in stored.files]
    asked = cases(images, bundle.graph.is_size_free)
    given: dict[str, np.ndarray] = {}
    predictors = {runtime: Predictor(directory, runtime) for runtime in runtimes}
    for runtime, predictor in predictors.items():
        given.update({f"{runtime}|{case}": predictor(batch) for case, batch in asked.items()})
        given[f"description:{runtime}"] = np.array(predictor.description)
    for runtime, milliseconds in latencies(predictors, images[0]).items():
        given[f"latency:{runtime}"] = np.array(milliseconds)
    np.savez(answers, **given)


def _input(image: np.ndarray, transforms: list, name: str, dtype: str) -> np.ndarray:
    if image.dtype != np.uint8:
        return image
    return transform_image(image.tobytes() if image.ndim == 1 else image, transforms, name, dtype)


if __name__ == "__main__":
    main(*sys.argv[1:])
