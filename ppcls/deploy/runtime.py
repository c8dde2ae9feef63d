# SPDX-License-Identifier: Apache-2.0
"""Running an exported model: one face over the engines that can. No engine is imported before it is asked for."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from ppcls.deploy.bundle import GRAPH, INT8_GRAPH, ONNX_GRAPH, PARAMETERS
from ppcls.utils.errors import ConfigError, StorageError
from ppcls.utils.machine import usable_cores
from ppcls.utils.stdout import dropped

T = TypeVar("T")
MAX_THREADS = 1024
_DEVICE = re.compile(r"cpu|(?!cpu)[a-z_]+(:\d{1,4})?")


class InferenceEngine(Protocol):
    """Runs a graph.

    Attributes:
        description: engine, version and what about its settings matters.
    """

    description: str

    def run(self, images: np.ndarray) -> np.ndarray:
        """The outputs [N, class_num] for a batch of the graph's input."""


class PaddleEngine:
    """Paddle Inference.

    Args:
        directory: what the export wrote.
        device: ``cpu``, ``gpu``, ``gpu:1``, or a device of a plug-in, such as ``npu:0``.
        threads: of the CPU.
        onednn: use oneDNN's kernels. Paddle 3.3.1 does so unless told otherwise, and with them graphs with an
            upsampling do not run (Paddle#77340).

    Raises:
        ConfigError: Paddle, or the device, is not there.
        StorageError: it cannot load the graph.
    """

    def __init__(self, directory: Path, device: str, threads: int, onednn: bool = False) -> None:
        is_first = "paddle" not in sys.modules
        try:
            from paddle import __version__, inference
        except ImportError:
            raise ConfigError("Global.runtime: Paddle is not installed; pip install paddlepaddle") from None
        if is_first:
            from ppcls.utils.paddle_signals import take_from_paddle

            take_from_paddle()
        config = inference.Config(str(directory / GRAPH), str(directory / PARAMETERS))
        kind, _, number = device.partition(":")
        if kind == "cpu":
            config.set_cpu_math_library_num_threads(threads)
        elif kind == "gpu":
            _require(device, "gpu")
            config.enable_use_gpu(256, int(number or 0))  # MiB to begin with; it grows
        else:
            _require(device, kind)
            config.enable_custom_device(kind, int(number or 0))
        onednn = onednn and kind == "cpu"
        if onednn:
            config.enable_mkldnn()
            # Paddle 3.3.1 stores the slope as a double; this pass reads a float, and the process dies of it.
            if "leaky_relu" in (directory / GRAPH).read_text(encoding="utf-8"):
                config.delete_pass("conv_activation_onednn_fuse_pass")
        else:
            config.disable_mkldnn()
        config.disable_glog_info()
        self.description = f"Paddle Inference {__version__}, {'oneDNN' if onednn else 'plain (oneDNN off)'}"
        self.predictor = loaded(lambda: inference.create_predictor(config), directory / GRAPH, self.description)
        self._restore_threads()
        # At the first run, a pass of Paddle 3.3.1 for oneDNN prints its name where answers are expected.
        self._around_run: AbstractContextManager[None] = dropped() if onednn else nullcontext()

    def run(self, images: np.ndarray) -> np.ndarray:
        """Run one batch."""
        handle = self.predictor.get_input_handle(self.predictor.get_input_names()[0])
        handle.reshape(images.shape)
        handle.copy_from_cpu(np.ascontiguousarray(images))
        around, self._around_run = self._around_run, nullcontext()
        with around:
            self.predictor.run()
        self._restore_threads()
        return self.predictor.get_output_handle(self.predictor.get_output_names()[0]).copy_to_cpu()

    @staticmethod
    def _restore_threads() -> None:
        # Paddle 3.3.1 leaves the predictor's number of threads behind for all that this process computes, and a
        # training sums in another order with it. Paddle itself writes its number for training into this variable.
        from paddle.base import core

        core.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


PROVIDERS = {"cpu": "CPUExecutionProvider", "gpu": "CUDAExecutionProvider", "npu": "CANNExecutionProvider"}
"""What ONNX Runtime calls devices."""
TENSORRT = "TensorrtExecutionProvider"

X86 = ("x86_64", "amd64", "i386", "i686")
CPU_INFO = Path("/proc/cpuinfo")
VNNI = {"avx512_vnni", "avx_vnni"}
"""What the kernel calls instructions that sum products of bytes in 32 bits."""


class OnnxRuntimeEngine:
    """ONNX Runtime.

    Args:
        directory: what the export wrote.
        device: ``cpu``, ``gpu``, ``gpu:1``, ``npu``.
        threads: of the CPU.
        graph: the file in the directory.
        tensorrt: on a GPU, what TensorRT can compute is its. It builds its kernels, for minutes, at the first batch
            of each size. Written by ONNX Runtime's documentation; no GPU has run it yet.

    Raises:
        ConfigError: onnxruntime is not installed, or not for the device, or does not run on it.
        StorageError: it cannot load the graph.
    """

    def __init__(
        self, directory: Path, device: str, threads: int, graph: str = ONNX_GRAPH, tensorrt: bool = False
    ) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise ConfigError('Global.runtime: onnxruntime is not installed; pip install "ppcls[onnx]"') from None
        kind, _, number = device.partition(":")
        if tensorrt and kind != "gpu":
            raise ConfigError(f"Global.runtime: tensorrt runs on a GPU, not on '{device}'; write Global.device=gpu")
        provider = TENSORRT if tensorrt else PROVIDERS.get(kind)
        if provider not in onnxruntime.get_available_providers():
            raise ConfigError(
                f"Global.device: this onnxruntime does not run on '{device}'; write cpu, or install the one that does, "
                "such as onnxruntime-gpu"
            )
        manner = ", int8" if graph == INT8_GRAPH else ", TensorRT" if tensorrt else ""
        self.description = f"ONNX Runtime {onnxruntime.__version__}{manner}"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors; it warns of each number that the conversion left unused
        if graph == INT8_GRAPH and not sums_bytes_in_32_bits():
            # The slow way: twice the time, but the same answers as elsewhere.
            options.add_session_config_entry("session.x64quantprecision", "1")
        providers = providers_of(kind, int(number or 0), tensorrt)
        path = directory / graph
        self.session = loaded(
            lambda: onnxruntime.InferenceSession(str(path), options, providers=providers), path, self.description
        )
        if self.session.get_providers()[0] != provider:  # it goes on without, saying so where nobody looks
            raise ConfigError(
                f"Global.device: onnxruntime cannot load what '{device}' needs; install its libraries, or write cpu"
            )
        self.input_name = self.session.get_inputs()[0].name

    def run(self, images: np.ndarray) -> np.ndarray:
        """Run one batch."""
        return self.session.run(None, {self.input_name: images})[0]


def loaded(load: Callable[[], T], graph: Path, engine: str) -> T:
    """What an engine makes of a graph.

    Raises:
        StorageError: it cannot load it.
    """
    try:
        return load()
    except Exception as error:  # the classes of engines' errors have no other base
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise StorageError(
            f"{graph}: {engine} cannot load it ({lines[-1][:200]}); export it again, or use the version that it was "
            "exported with"
        ) from error


def providers_of(kind: str, number: int, tensorrt: bool) -> list[tuple[str, dict[str, Any]]]:
    """What ONNX Runtime is to compute with, the first that can, and their options."""
    options: dict[str, Any] = {} if kind == "cpu" else {"device_id": number}
    if kind == "gpu":
        options["use_tf32"] = 0  # its 10 bits would not give the answers that were proven
    first = [(TENSORRT, {"device_id": number})] if tensorrt else []
    return [*first, (PROVIDERS[kind], options)]


def sums_bytes_in_32_bits() -> bool:
    """Whether sums of products of bytes cannot overflow: not on x86 without VNNI, which has 16 bits for them."""
    if platform.machine().lower() not in X86:
        return True
    try:
        return bool(VNNI & set(CPU_INFO.read_text(encoding="utf-8", errors="replace").split()))
    except OSError:
        return False


def engine_of(runtime: str, directory: Path, device: str, threads: int) -> InferenceEngine:
    """The engine that ``Global.runtime`` names."""
    if runtime in ("onnxruntime", "int8", "tensorrt"):
        graph = INT8_GRAPH if runtime == "int8" else ONNX_GRAPH
        return OnnxRuntimeEngine(directory, device, threads, graph, runtime == "tensorrt")
    return PaddleEngine(directory, device, threads, onednn=runtime == "paddle_onednn")


class Predictor:
    """An exported model: a batch of the graph's input to outputs [N, class_num].

    Args:
        directory: what the export wrote.
        runtime: the engine: ``paddle``, ``paddle_onednn``, ``onnxruntime``, ``int8`` or ``tensorrt``.
        device: where it runs: ``cpu``, ``gpu``, ``gpu:1``, ``npu``, ...
        threads: of the CPU; by default one for each core that this process may use.

    Attributes:
        description: engine and version.

    Raises:
        ConfigError: the engine is not installed, or not for the device; or threads are none.
        StorageError: it cannot load the graph.
    """

    def __init__(
        self, directory: str | os.PathLike, runtime: str = "paddle", device: str = "cpu", threads: int | None = None
    ) -> None:
        if threads is not None and not 1 <= threads <= MAX_THREADS:
            raise ConfigError(f"threads: expected 1 to {MAX_THREADS}; got {threads}")
        if not _DEVICE.fullmatch(device):
            raise ConfigError(f"Global.device: expected cpu, gpu, gpu:1 or the like; got '{device}'")
        self.engine = engine_of(runtime, Path(directory), device, threads or usable_cores())
        self.description = self.engine.description

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Run one batch of any size."""
        return self.engine.run(images)


def _require(device: str, kind: str) -> None:
    from ppcls.utils.device import available_devices

    there: Any = [name.partition(":")[0] for name in available_devices()]
    if kind not in there:
        raise ConfigError(f"Global.device: '{device}' is not on this machine; there is {', '.join(sorted(set(there)))}")
