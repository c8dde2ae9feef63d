# SPDX-License-Identifier: Apache-2.0
"""Running an exported model: one face over the engines that can."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import numpy as np
import paddle.inference

from ppcls.deploy.bundle import GRAPH, ONNX_GRAPH, PARAMETERS
from ppcls.utils.errors import ConfigError


class InferenceEngine(Protocol):
    """Runs a graph on the CPU.

    Attributes:
        description: engine, version and what about its settings matters.
    """

    description: str

    def run(self, images: np.ndarray) -> np.ndarray:
        """The outputs [N, class_num] for images [N, C, H, W] float32."""


class PaddleEngine:
    """Paddle Inference.

    Args:
        directory: what the export wrote.
    """

    def __init__(self, directory: Path) -> None:
        self.description = f"Paddle Inference {paddle.__version__}, plain (oneDNN off)"
        config = paddle.inference.Config(str(directory / GRAPH), str(directory / PARAMETERS))
        # Paddle 3.3.1 turns oneDNN on by itself, and with it graphs with an upsampling do not run (Paddle#77340).
        config.disable_mkldnn()
        config.disable_glog_info()
        self.predictor = paddle.inference.create_predictor(config)

    def run(self, images: np.ndarray) -> np.ndarray:
        """Run one batch."""
        handle = self.predictor.get_input_handle(self.predictor.get_input_names()[0])
        handle.reshape(images.shape)
        handle.copy_from_cpu(np.ascontiguousarray(images))
        self.predictor.run()
        return self.predictor.get_output_handle(self.predictor.get_output_names()[0]).copy_to_cpu()


class OnnxRuntimeEngine:
    """ONNX Runtime.

    Args:
        directory: what the export wrote, with ``model.onnx``.

    Raises:
        ConfigError: onnxruntime is not installed.
    """

    def __init__(self, directory: Path) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise ConfigError('Global.runtime: onnxruntime is not installed; pip install "ppcls[onnx]"') from None
        self.description = f"ONNX Runtime {onnxruntime.__version__}"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors; it warns of each number that the conversion left unused
        path = str(directory / ONNX_GRAPH)
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(self, images: np.ndarray) -> np.ndarray:
        """Run one batch."""
        return self.session.run(None, {self.session.get_inputs()[0].name: images})[0]


ENGINES = {"paddle": PaddleEngine, "onnxruntime": OnnxRuntimeEngine}
"""The engines by the names that ``Global.runtime`` has for them."""


class Predictor:
    """An exported model on the CPU: images [N, C, H, W] float32 to outputs [N, class_num].

    Args:
        directory: what the export wrote.
        runtime: the engine, one of `ENGINES`.

    Attributes:
        description: engine and version.

    Raises:
        ConfigError: the engine is not installed.
    """

    def __init__(self, directory: str | os.PathLike, runtime: str = "paddle") -> None:
        self.engine: InferenceEngine = ENGINES[runtime](Path(directory))
        self.description = self.engine.description

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Run one batch of any size."""
        return self.engine.run(images)
