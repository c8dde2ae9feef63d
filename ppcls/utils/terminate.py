# SPDX-License-Identifier: Apache-2.0
"""What becomes of an exception of C++ that nothing catches."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

_acts: dict[str, Callable[[], None]] = {}
_kept: list[Any] = []
"""What the C++ library calls has to stay alive."""


def on_uncaught(word: str, act: Callable[[], None] | None) -> None:
    """Call ``act`` when C++ is about to abort for an exception whose type has ``word`` in its name.

    Paddle 3.3.1 lets gloo's exceptions leave the backward pass uncaught: the process would abort with a page of C++
    and an exit code that says nothing. Without GNU's C++ library nothing changes.

    Args:
        word: part of the type's name.
        act: has to end the process, or it aborts; None takes an earlier one back.
    """
    if act is None:
        _acts.pop(word, None)
        return
    _acts[word] = act
    if not _kept and sys.platform == "linux":
        _install()


def _install() -> None:
    try:
        library = ctypes.CDLL("libstdc++.so.6")
        set_handler, exception_type = library._ZSt13set_terminatePFvvE, library.__cxa_current_exception_type
    except (OSError, AttributeError):
        return
    exception_type.restype = set_handler.restype = ctypes.c_void_p
    set_handler.argtypes = [ctypes.c_void_p]

    @ctypes.CFUNCTYPE(None)
    def handler() -> None:
        found = exception_type()
        # std::type_info: a pointer to its methods, and one to its name.
        name = ctypes.c_char_p.from_address(found + ctypes.sizeof(ctypes.c_void_p)).value if found else None
        for word, act in list(_acts.items()):
            if word.encode() in (name or b""):
                act()
        if before:
            ctypes.CFUNCTYPE(None)(before)()

    before = set_handler(ctypes.cast(handler, ctypes.c_void_p))
    _kept.append(handler)
