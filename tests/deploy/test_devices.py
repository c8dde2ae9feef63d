# SPDX-License-Identifier: Apache-2.0
"""What is asked of ONNX Runtime for each device, by its documentation; the devices themselves are not here."""

from types import SimpleNamespace

import pytest

from ppcls.deploy.bundle import FILES_OF, MODULES
from ppcls.deploy.runtime import TENSORRT, OnnxRuntimeEngine, engine_of, providers_of
from ppcls.utils.errors import ConfigError

onnxruntime = pytest.importorskip("onnxruntime")

CUDA, CANN = "CUDAExecutionProvider", "CANNExecutionProvider"


@pytest.fixture
def asked(monkeypatch):
    """An ONNX Runtime that has everything, and says what it was asked for."""
    calls = []

    class Session:
        is_loaded = True

        def __init__(self, path, options, providers):
            calls.append(providers)

        def get_providers(self):
            return [calls[-1][0][0]] if Session.is_loaded else ["CPUExecutionProvider"]

        def get_inputs(self):
            return [SimpleNamespace(name="x")]

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CANN, "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    calls.append(Session)
    return calls


@pytest.mark.parametrize(
    ("runtime", "device", "providers"),
    [
        ("onnxruntime", "cpu", [("CPUExecutionProvider", {})]),
        ("onnxruntime", "gpu", [(CUDA, {"device_id": 0, "use_tf32": 0})]),
        ("int8", "gpu:3", [(CUDA, {"device_id": 3, "use_tf32": 0})]),
        ("onnxruntime", "npu:1", [(CANN, {"device_id": 1})]),
        ("tensorrt", "gpu:2", [(TENSORRT, {"device_id": 2}), (CUDA, {"device_id": 2, "use_tf32": 0})]),
    ],
)
def test_each_device_is_asked_for_by_its_documented_name(asked, tmp_path, runtime, device, providers):
    engine_of(runtime, tmp_path, device, 1)
    assert asked[-1] == providers


def test_the_description_tells_tensorrt(asked, tmp_path):
    assert engine_of("tensorrt", tmp_path, "gpu", 1).description == f"ONNX Runtime {onnxruntime.__version__}, TensorRT"


def test_tensorrt_needs_a_gpu(asked, tmp_path):
    with pytest.raises(ConfigError, match="tensorrt runs on a GPU, not on 'cpu'; write Global.device=gpu"):
        engine_of("tensorrt", tmp_path, "cpu", 1)


def test_a_device_that_onnxruntime_silently_leaves_out_is_refused(asked, tmp_path):
    asked[0].is_loaded = False
    with pytest.raises(ConfigError, match="Global.device: onnxruntime cannot load what 'gpu' needs"):
        OnnxRuntimeEngine(tmp_path, "gpu", 1)


def test_an_onnxruntime_without_tensorrt_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="this onnxruntime does not run on 'gpu'"):
        engine_of("tensorrt", tmp_path, "gpu", 1)


def test_every_engine_has_its_files_and_its_module():
    assert FILES_OF.keys() == MODULES.keys()
    assert providers_of("cpu", 0, False) == [("CPUExecutionProvider", {})]
