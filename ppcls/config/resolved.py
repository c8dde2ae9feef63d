# SPDX-License-Identifier: Apache-2.0
"""A checked configuration as YAML again: every default filled in and, on request, where each value comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

import yaml

from ppcls.config.annotation import parameters_of
from ppcls.config.registry import Call, is_each_key
from ppcls.utils.download import masked


def resolved_text(call: Call, origins: bool = False) -> str:
    """The whole configuration as YAML; with ``origins`` each value is followed by ``# file:line`` or ``# default``."""
    lines = list(_mapping(call, 0))
    width = min(max(len("  " * indent + text) for indent, text, _ in lines), 78)
    shown = []
    for indent, text, origin in lines:
        line = "  " * indent + text
        shown.append(f"{line:<{width}}  # {origin}" if origins and origin else line)
    return "\n".join(shown) + "\n"


def resolved_tree(call: Call, defaults: bool = True) -> dict[str, Any]:
    """The same as plain values: what `resolved_text` reads as; without ``defaults`` only what the file gives."""
    parameters = parameters_of(call.target)
    tree: dict[str, Any] = {}
    for key, value, origin in _entries(call):
        if key in parameters and is_each_key(parameters[key].annotation):
            for item in value:
                tree.update(_part(item, defaults))
        elif defaults or origin != "default":
            tree[key] = _plain(value, defaults)
    return tree


def _plain(value: Any, defaults: bool) -> Any:
    if isinstance(value, Call):
        is_named = not value.inline and not is_dataclass(value.target)
        return {**({"name": value.name} if is_named else {}), **resolved_tree(value, defaults)}
    if isinstance(value, (list, tuple)) and any(isinstance(item, Call) for item in value):
        return [_part(item, defaults) for item in value]
    return _shown(value)


def _part(call: Call, defaults: bool) -> dict[str, Any]:
    tree = resolved_tree(call, defaults)
    if call.inline:
        del tree["name"]
    return {(call.kwargs[call.inline] if call.inline else call).name: tree}


def short_text(call: Call) -> str:
    """A part with what the file says of it, defaults left out, in one line of YAML."""
    named = call.kwargs[call.inline] if call.inline else call
    settings = ", ".join(_given(call))
    return f"{named.name}: {{{settings}}}" if settings else named.name


def _given(call: Call) -> Iterator[str]:
    if call.inline:
        yield from _given(call.kwargs[call.inline])
    parameters = parameters_of(call.target)
    for key, value in call.kwargs.items():
        if key in parameters and is_each_key(parameters[key].annotation):
            yield from map(short_text, value)
        elif key != call.inline:
            yield f"{key}: {_short(value)}"


def _short(value: Any) -> str:
    if isinstance(value, Call):
        return short_text(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_short, value))}]"
    return f"{value:g}" if isinstance(value, float) else _scalar(value)


def _mapping(call: Call, indent: int) -> Iterator[tuple[int, str, str]]:
    yield from _lines(call, list(_entries(call)), indent)


def _lines(call: Call, entries: list[tuple[str, Any, str]], indent: int) -> Iterator[tuple[int, str, str]]:
    parameters = parameters_of(call.target)
    for key, value, origin in entries:
        if key in parameters and is_each_key(parameters[key].annotation):
            for item in value:
                yield from _item(item, indent, "", 1)
        else:
            yield from _entry(f"{key}:", value, origin, indent)


def _entries(call: Call) -> Iterator[tuple[str, Any, str]]:
    """Key, value and origin of everything in one block, given or default."""
    if call.inline:
        named = call.kwargs[call.inline]
        yield "name", named.name, named.where
        yield from _entries(named)
    for key, parameter in parameters_of(call.target).items():
        if key in call.kwargs and key != call.inline:
            yield key, call.kwargs[key], call.origins.get(key, call.where)
        elif key not in call.runtime and key != call.inline and parameter.default is not parameter.empty:
            yield key, _default(parameter.default), "default"


def _default(value: Any) -> Any:
    return Call(type(value), where="default") if is_dataclass(value) else value


def _entry(head: str, value: Any, origin: str, indent: int) -> Iterator[tuple[int, str, str]]:
    if isinstance(value, Call):
        yield indent, head, ""
        if not value.inline and not is_dataclass(value.target):
            yield indent + 1, f"name: {value.name}", value.where
        yield from _mapping(value, indent + 1)
    elif isinstance(value, (list, tuple)) and any(isinstance(item, Call) for item in value):
        yield indent, head, ""
        for item in value:
            yield from _item(item, indent + 1)
    else:
        yield indent, f"{head} {_scalar(value)}", origin


def _item(call: Call, indent: int, dash: str = "- ", step: int = 2) -> Iterator[tuple[int, str, str]]:
    named = call.kwargs[call.inline] if call.inline else call
    entries = [entry for entry in _entries(call) if not (call.inline and entry[0] == "name")]
    yield indent, f"{dash}{named.name}:" if entries else f"{dash}{named.name}: {{}}", named.where
    yield from _lines(call, entries, indent + step)


def _scalar(value: Any) -> str:
    text = yaml.safe_dump(_shown(value), default_flow_style=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def _shown(value: Any) -> Any:
    """The value without passwords in URLs: runs keep this text in their folder, and people pass such folders on."""
    if isinstance(value, dict):
        return {key: _shown(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(item) for item in value]
    return masked(value) if isinstance(value, str) else value
