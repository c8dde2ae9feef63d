# SPDX-License-Identifier: Apache-2.0
"""Pickles of plain containers and NumPy arrays, read without calling anything that they name."""

from __future__ import annotations

import collections
import math
import pickle
import struct
from typing import Any, BinaryIO

import numpy as np

# What reading a damaged or hostile pickle may raise, besides the UnpicklingError of the refusals below.
_BAD_PICKLE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


def load_arrays(file: BinaryIO) -> Any:
    """Return what a pickle holds: numbers, texts, lists, tuples, dicts and NumPy arrays; no code in it is run.

    Texts that Python 2 wrote as bytes are decoded as Latin-1.

    Args:
        file: open for reading, protocols 0 to 4.

    Raises:
        ValueError: damaged, or it names anything but plain containers and arrays; says what.
    """
    try:
        return _with_arrays(_ArrayUnpickler(file, encoding="latin1").load(), {})
    except _BAD_PICKLE as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error


def _with_arrays(value: Any, converted: dict[int, Any]) -> Any:
    # What is converted is remembered: a pickle may name one list many times over, each in the next.
    if not isinstance(value, (_Array, dict, list, tuple)):
        return value
    if id(value) not in converted:
        converted[id(value)] = _converted(value, converted)
    return converted[id(value)]


def _converted(value: Any, converted: dict[int, Any]) -> Any:
    if isinstance(value, _Array):
        if value.array is None:
            raise pickle.UnpicklingError("it has an array without contents")
        return value.array
    if isinstance(value, dict):
        return {key: _with_arrays(item, converted) for key, item in value.items()}
    return type(value)(_with_arrays(item, converted) for item in value)


class _StandIn:
    """Base of what a pickle gets in place of the NumPy callables it names, so that none of those is ever called."""

    def __setstate__(self, state: Any = None) -> None:
        # Also reached when a pickle tries to set attributes of the class itself (the BUILD opcode on a global).
        raise pickle.UnpicklingError("it sets the state of something that has none")


class _DType(_StandIn):
    """Stands in for ``numpy.dtype``: a plain number type, remembered by its code."""

    codes = frozenset(["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"])

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if code not in self.codes:
            raise pickle.UnpicklingError(f"it has an array of type {code!r:.40}, which is not a number type")
        self.code = code
        self.order = "<"

    def __setstate__(self, state: Any = None) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"it has an array of byte order {state[1]!r:.40}")
        self.order = state[1]


class _Array(_StandIn):
    """Stands in for ``numpy.ndarray``: its state becomes ``array`` once the size of the data is right."""

    array: np.ndarray | None = None

    def __setstate__(self, state: Any = None) -> None:
        _, shape, dtype, is_fortran, data = state
        if not isinstance(dtype, _DType) or not all(type(length) is int and length >= 0 for length in shape):
            raise pickle.UnpicklingError("it has an array without a proper type or shape")
        if isinstance(data, str):
            data = data.encode("latin1")  # written by Python 2
        array = np.frombuffer(data, dtype.order + dtype.code)
        if array.size != math.prod(shape):
            raise pickle.UnpicklingError(f"it has an array of shape {list(shape)} with data for {array.size} values")
        self.array = array.astype(array.dtype.newbyteorder("="), copy=False).reshape(
            shape, order="CF"[bool(is_fortran)]
        )


class _Reconstruct(_StandIn):
    """Stands in for ``numpy.core.multiarray._reconstruct``, which makes the array whose state follows."""

    def __new__(cls, kind: Any, shape: Any, code: Any) -> Any:
        """Return an array without contents, of the one kind that is allowed."""
        if kind is not _Array:
            raise pickle.UnpicklingError("it has an array of an unknown kind")
        return _Array()


class _Encode(_StandIn):
    """Stands in for ``_codecs.encode``, which protocol 2 uses to spell bytes."""

    def __new__(cls, text: str, encoding: str) -> Any:
        """Return the bytes that the text spells."""
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"it asks for the codec {encoding!r:.40}")
        return text.encode("latin1")


class _NoBytes(_StandIn):
    """Stands in for ``bytes``, which protocol 2 calls for the data of an array without elements."""

    def __new__(cls) -> Any:
        """Return no bytes; an argument, such as a length, is refused."""
        return b""


# The one written in Python: the other keeps what a pickle numbers in a table, and a few bytes that number something
# 2**31 have it fill all memory.
class _ArrayUnpickler(pickle._Unpickler):
    """Allows what NumPy arrays and plain containers need (protocols 0 to 4) and refuses every other global."""

    allowed = {
        ("builtins", "tuple"): tuple,
        ("__builtin__", "tuple"): tuple,
        ("builtins", "bytes"): _NoBytes,
        ("__builtin__", "bytes"): _NoBytes,
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("_codecs", "encode"): _Encode,
        ("numpy", "dtype"): _DType,
        ("numpy", "ndarray"): _Array,
        ("numpy.core.multiarray", "_reconstruct"): _Reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _Reconstruct,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for an allowed global.

        Raises:
            pickle.UnpicklingError: it is not on the list; names it.
        """
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which is neither a plain container nor an array; not run"
            )
        return self.allowed[module, name]
