# SPDX-License-Identifier: Apache-2.0
"""Fixtures shared by the whole suite."""

import logging
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import toys

from ppcls.utils.logger import stop_logging

pytest_plugins = ["promises"]


def pytest_configure(config):
    # Paddle 3.3.1 says this at every training-mode forward of a BatchNorm2D; there is nothing to change.
    config.addinivalue_line("filterwarnings", "ignore:When training, we now always track:UserWarning")


@pytest.fixture(autouse=True)
def ppcls_log_propagates(monkeypatch):
    """Let ``caplog`` see what the ``ppcls`` logger is given, whatever a test before this one set up.

    What this one sets up ends with it: its standard output is closed then, and the log would be written there.
    """
    monkeypatch.setattr(logging.getLogger("ppcls"), "propagate", True)
    yield
    stop_logging()


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory):
    return toys.write_data(tmp_path_factory.mktemp("toy_data"))


@pytest.fixture
def toy_config(tmp_path, toy_data):
    """The checked configuration of a toy run, with overrides."""
    from ppcls.config import load_config

    path = toys.write_yaml(tmp_path, toy_data)
    return lambda *overrides: load_config(path, overrides)


@pytest.fixture
def train(tmp_path, toy_config):
    """Train on toy data into a folder of ``tmp_path``, perhaps with more callbacks, and return that folder."""
    from ppcls.engine import Engine
    from ppcls.utils.logger import stop_logging

    def run(name, *overrides, callbacks=()):
        engine = Engine(toy_config(f"Global.output_dir={tmp_path / name}", *overrides))
        if callbacks:
            engine.parts.callbacks.extend(callbacks)
        engine.train()
        stop_logging()
        return tmp_path / name

    return run


@pytest.fixture(scope="session")
def reference():
    """The folder of reference vectors (``PPCLS_REFERENCE``, or ``shared/reference`` beside the repository)."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "reference"
    path = Path(os.environ.get("PPCLS_REFERENCE") or beside)
    if not (path / "README.md").is_file():
        pytest.skip("no reference vectors; set PPCLS_REFERENCE to their folder")
    return path


@pytest.fixture(scope="session")
def filled_value():
    """The array of the reference's fill rules v1 (gain 1) and v2 (another gain) for one state-dict key."""

    def value(key, shape, gain=1.0):
        z = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF).standard_normal(tuple(shape))
        if key.endswith("._variance"):
            z = 1 + 0.1 * abs(z)
        elif key.endswith("._mean"):
            z = 0.1 * z
        elif len(shape) <= 1:
            z = 1 + 0.1 * z if key.endswith("weight") else 0.1 * z
        else:
            z = gain * z / np.sqrt(shape[0] if len(shape) == 2 else np.prod(shape[1:]))
        return z.astype("float32")

    return value


@pytest.fixture(scope="session")
def fill_rule(filled_value):
    """A function that fills a model's floating-point state by the reference's rule and returns the model."""

    def fill(model, gain=1.0):
        for key, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                dtype = str(tensor.dtype).rpartition(".")[2]
                tensor.set_value(filled_value(key, tensor.shape, gain).astype(dtype))
        return model

    return fill


@pytest.fixture(scope="session")
def reference_images():
    """A function that returns the reference's images for a shape [N, 3, H, W]."""
    return lambda shape: np.random.RandomState(1234).standard_normal(tuple(shape)).astype("float32")


@pytest.fixture(scope="session")
def object_storage():
    """An S3 server; skipped where its packages are not installed."""
    for package in ("s3fs", "moto.server", "boto3"):
        pytest.importorskip(package)
    from object_storage import ObjectStorage

    storage = ObjectStorage()
    storage.start()
    yield storage
    storage.stop()


@pytest.fixture
def s3(object_storage, monkeypatch, tmp_path):
    """The S3 server with an empty bucket, reached as ``s3://bucket`` by this process; nothing is tried twice."""
    from s3fs import S3FileSystem

    from ppcls.utils import remote

    for name, value in object_storage.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PPCLS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "NUM_ATTEMPTS", 1)
    S3FileSystem.clear_instance_cache()
    object_storage.empty()
    return object_storage
