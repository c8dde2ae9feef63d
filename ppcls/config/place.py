# SPDX-License-Identifier: Apache-2.0
"""Which keys may stand where in a file: known from the signatures, used to say where a misplaced key belongs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin

from ppcls.config.annotation import UNIONS, parameters_of
from ppcls.config.registry import Block, block_of
from ppcls.config.schema import RunConfig


def elsewhere(key: str, path: str) -> str | None:
    """Advice where a key that stands in the wrong block belongs; the nearest such block when several know it."""
    if path and key in parameters_of(RunConfig):
        return f"'{key}' is a section; it starts at the beginning of a line"
    wanted = path.split(".")
    blocks = {block for known, block in keys() if known == key and block}
    ranked = sorted(blocks, key=lambda block: (-len(os.path.commonprefix([block.split("."), wanted])), block))
    return f"it belongs under '{ranked[0]}'" if ranked and path not in blocks else None


def keys(target: Any = RunConfig, path: str = "") -> Iterator[tuple[str, str]]:
    """Every key that may stand at a fixed place below a callable, with the path of the block it stands in."""
    for name, parameter in parameters_of(target).items():
        inside = f"{path}.{name}".lstrip(".")
        is_inline = False
        for hint in _parts(parameter.annotation):
            block = block_of(hint)
            if is_dataclass(hint):
                yield from keys(hint, inside)
            elif block:
                is_inline = is_inline or block.inline
                for entry in block.registry:
                    names = parameters_of(block.registry[entry])
                    yield from ((key, path if block.inline else inside) for key in names if key not in block.runtime)
        if not is_inline:
            yield name, path


def blocks(target: Any = RunConfig) -> Iterator[Block]:
    """The blocks of the fixed sections that name a registered callable."""
    for parameter in parameters_of(target).values():
        for hint in _parts(parameter.annotation):
            block = block_of(hint)
            if block:
                yield block
            elif is_dataclass(hint):
                yield from blocks(hint)


def _parts(hint: Any) -> Iterator[Any]:
    """A type, or the members of a union and the items of a list."""
    if get_origin(hint) in (*UNIONS, list):
        for item in get_args(hint):
            yield from _parts(item)
    else:
        yield hint
