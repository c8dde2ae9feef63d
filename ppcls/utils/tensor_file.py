# SPDX-License-Identifier: Apache-2.0
"""Arrays written as safetensors straight from where they lie, and hashed on the way."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping

import numpy as np

_TYPES = ("bool", "uint8", "int8", "int16", "float16", "int32", "float32", "float64", "int64")
"""In the order in which the library lays them out, the last first: what needs most alignment comes first."""
_WORDS = {"bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "float16": "F16", "int32": "I32"}
_WORDS.update({"float32": "F32", "float64": "F64", "int64": "I64"})
_ALIGNMENT = 8
_BLOCK_BYTES = 16 << 20
"""Smaller arrays are gathered to blocks of this size: after each one the thread has to ask for its turn again."""


def write_tensors(tensors: Mapping[str, np.ndarray], path: str | os.PathLike) -> str:
    """Write a safetensors file, byte for byte what the library would, and return its sha256 as hexadecimal digits.

    The library makes a second copy of everything first, and says only in its own words what the system refuses. This
    one gives other threads the processor while it writes and hashes, and holds nothing back in a buffer, which a
    process that is forked meanwhile would have too.

    Raises:
        OSError: the file cannot be written.
        KeyError: an array is of a type that Paddle does not train with.
    """
    digest = hashlib.sha256()
    with open(path, "wb", buffering=0) as file:
        for block in _blocks(tensors):
            digest.update(block)
            left = memoryview(block)
            while left:
                left = left[file.write(left) :]
    return digest.hexdigest()


def file_bytes(tensors: Mapping[str, np.ndarray]) -> int:
    """Return the size of the file that `write_tensors` makes."""
    return len(_header(tensors)) + sum(array.nbytes for array in tensors.values())


def _blocks(tensors: Mapping[str, np.ndarray]) -> Iterator[bytes | memoryview]:
    """The file in pieces."""
    small: list[bytes | memoryview] = [_header(tensors)]
    num_bytes = len(small[0])
    for name in _in_order(tensors):
        array = np.ascontiguousarray(tensors[name]).reshape(-1)
        content = memoryview(array.astype(array.dtype.newbyteorder("<"), copy=False).view(np.uint8))
        if num_bytes + len(content) > _BLOCK_BYTES:
            yield b"".join(small)
            small, num_bytes = [], 0
        if len(content) > _BLOCK_BYTES:
            yield content
        else:
            small.append(content)
            num_bytes += len(content)
    yield b"".join(small)


def _header(tensors: Mapping[str, np.ndarray]) -> bytes:
    entries, end = {}, 0
    for name in _in_order(tensors):
        array = tensors[name]
        begin, end = end, end + array.nbytes
        entries[name] = {"dtype": _WORDS[array.dtype.name], "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _in_order(tensors: Mapping[str, np.ndarray]) -> list[str]:
    return sorted(tensors, key=lambda name: (-_TYPES.index(tensors[name].dtype.name), name))
