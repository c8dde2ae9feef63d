# SPDX-License-Identifier: Apache-2.0
"""Running an exported model."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import paddle.inference
import yaml

import ppcls.data  # noqa: F401  (registers the transforms)
from ppcls.config.registry import TRANSFORMS
from ppcls.deploy.export import DESCRIPTION, PREFIX


class Predictor:
    """An exported model in Paddle Inference on the CPU: images [N, C, H, W] float32 to outputs [N, class_num].

    Args:
        directory: what the export wrote.
    """

    def __init__(self, directory: str | os.PathLike) -> None:
        path = Path(directory) / PREFIX
        config = paddle.inference.Config(f"{path}.json", f"{path}.pdiparams")
        # Paddle 3.3.1 turns oneDNN on by itself, and with it graphs with an upsampling do not run (Paddle#77340).
        config.disable_mkldnn()
        config.disable_glog_info()
        self.predictor = paddle.inference.create_predictor(config)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Run one batch."""
        handle = self.predictor.get_input_handle(self.predictor.get_input_names()[0])
        handle.reshape(images.shape)
        handle.copy_from_cpu(np.ascontiguousarray(images))
        self.predictor.run()
        return self.predictor.get_output_handle(self.predictor.get_output_names()[0]).copy_to_cpu()


def load_transforms(directory: str | os.PathLike) -> list[Any]:
    """The preprocessing that ``inference.yml`` describes, from an image file's bytes to the model's input."""
    description = yaml.safe_load((Path(directory) / DESCRIPTION).read_text(encoding="utf-8"))
    for module in description["Global"].get("imports") or []:
        importlib.import_module(module)
    items = [item for block in description["PreProcess"]["transform_ops"] for item in block.items()]
    return [TRANSFORMS[name](**(parameters or {})) for name, parameters in items]
