# SPDX-License-Identifier: Apache-2.0
"""Arrays written as the safetensors library writes them."""

import hashlib
import resource

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from ppcls.utils import tensor_file
from ppcls.utils.tensor_file import file_bytes, write_tensors

TYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]


def arrays(names=("a", "b.c/d_0", 'é "\\\n\x7f', "z")):
    rng = np.random.RandomState(0)
    shapes = ([], [0, 3], [5], [3, 4, 2])
    return {
        f"{name} {kind}": (9 * rng.standard_normal(shape)).astype(kind)
        for name, shape in zip(names, shapes)
        for kind in TYPES
    }


@pytest.mark.parametrize("block_bytes", [16, 1000, 1 << 24])
@pytest.mark.parametrize("tensors", [{}, arrays(), {"one": np.arange(12, dtype="float32").reshape(3, 4).T}])
def test_a_file_is_byte_for_byte_that_of_the_library(tmp_path, monkeypatch, tensors, block_bytes):
    monkeypatch.setattr(tensor_file, "_BLOCK_BYTES", block_bytes)
    digest = write_tensors(tensors, tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    # The library takes arrays as they lie in memory, so they have to lie in order.
    assert content == save({name: np.array(array, order="C") for name, array in tensors.items()})
    assert digest == hashlib.sha256(content).hexdigest()
    assert file_bytes(tensors) == len(content)


def test_the_library_reads_what_was_written(tmp_path):
    tensors = arrays()
    write_tensors(tensors, tmp_path / "file")
    read = load_file(tmp_path / "file")
    assert set(read) == set(tensors)
    for name, array in tensors.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


def test_what_the_system_refuses_is_an_oserror(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_tensors({"a": np.zeros(2000)}, tmp_path / "file")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "file").stat().st_size == 5000


def test_a_type_that_nobody_trains_with_is_refused(tmp_path):
    with pytest.raises(ValueError):
        write_tensors({"a": np.zeros(3, np.uint64)}, tmp_path / "file")
