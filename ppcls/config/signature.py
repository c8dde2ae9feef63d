# SPDX-License-Identifier: Apache-2.0
"""A YAML block held against a callable's signature: names, types, ranges, what is missing, what was meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from ppcls.config import legacy
from ppcls.config.annotation import Opaque, Within, parameters_of
from ppcls.config.node import Node
from ppcls.config.registry import Block, Call, Registry

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
FRACTION = re.compile(rf"\s*({NUMBER})\s*(?:/\s*({NUMBER})\s*)?")
INVALID = object()


@dataclass
class Problems:
    """Everything found wrong in one configuration, in the order of reading.

    Attributes:
        errors: what must be mended before anything is built.
        warnings: what has no effect here.
        elsewhere: for an unknown key and the block it stands in, the block that knows it, if there is one.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    elsewhere: Callable[[str, str], str | None] = lambda key, path: None

    def error(self, node: Node, path: str, text: str) -> Any:
        """Note an error and return the mark of a value that could not be read."""
        self.errors.append(f"{node.where}: {path}: {text}" if path else f"{node.where}: {text}")
        return INVALID


def parse(node: Node, path: str, hint: Any, problems: Problems) -> Any:
    """Turn a node into the value that a type asks for; blocks become `Call`.

    Args:
        node: the YAML value.
        path: its dotted path, for messages.
        hint: a type from `parameters_of`.
        problems: where errors are collected; nothing is raised.

    Returns:
        The value, or ``INVALID`` after noting at least one error.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _parse_annotated(node, path, arguments[0], arguments[1], problems)
    if origin is Union:
        return _parse_union(node, path, arguments, problems)
    if origin is Literal:
        return _parse_literal(node, path, arguments, problems)
    if origin in (list, tuple, Sequence):
        return _parse_list(node, path, origin, arguments, problems)
    if isinstance(hint, type) and is_dataclass(hint):
        return _bind(node, path, hint, (), problems)
    return _parse_scalar(node, path, hint, problems)


def suggestion(word: str, names: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the nearest of the names, or the whole list when none is near."""
    names = list(names)
    near = nearest(word, names)
    if near:
        return f"; did you mean '{near}'?"
    return f"; it may be {', '.join(names)}" if len(names) <= 12 else ""


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name most like the word, if one is like it at all."""
    by_lower = {name.lower(): name for name in names}
    match = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[match[0]] if match else None


def _bind(
    node: Node,
    path: str,
    target: Callable[..., Any],
    runtime: tuple[str, ...],
    problems: Problems,
    entries: dict[str, Node] | None = None,
) -> Any:
    """Hold a block against the signature of one callable; give the `Call`."""
    if entries is None:
        entries = node.value if node.value is not None else {}
    if not isinstance(entries, dict):
        return problems.error(node, path, f"expected a mapping of parameters, got {shown(node)}")
    parameters = parameters_of(target)
    inline = next((name for name, item in parameters.items() if _block(item.annotation, inline=True)), None)
    kwargs: dict[str, Any] = {}
    if inline:
        kwargs[inline], path, entries = _bind_named_part(node, path, target, inline, problems)
    unknown = [key for key in entries if key not in parameters or key in runtime or key == inline]
    for key in unknown:
        _unknown_key(entries[key], path, key, target, list(parameters), runtime, problems)
    meant = {nearest(key, parameters) for key in unknown}
    for key, item in parameters.items():
        if key in entries and key not in unknown:
            kwargs[key] = parse(entries[key], f"{path}.{key}" if path else key, item.annotation, problems)
        elif item.default is item.empty and key not in runtime and key != inline and key not in meant:
            problems.error(node, path, f"{target.__name__} needs '{key}', which has no default")
    if any(value is INVALID for value in kwargs.values()):
        return INVALID
    origins = {key: entries[key].where for key in kwargs if key in entries}
    return Call(target, kwargs, node.where, origins, inline=inline, runtime=runtime)


def _bind_named_part(
    node: Node, path: str, owner: Callable[..., Any], inline: str, problems: Problems
) -> tuple[Any, str, dict[str, Node]]:
    """Split a block that an owner shares with the callable named in it.

    Returns:
        The named callable's `Call` (or ``INVALID``), the path of the block and the owner's own entries.
    """
    owned = parameters_of(owner)
    block = _block(owned[inline].annotation)
    name, path, entries = _named(node, path, block, problems)
    own = {key: entry for key, entry in entries.items() if key in owned and key != inline}
    if name is None:
        return INVALID, path, own
    target = block.registry[name.value]
    rest = {key: entry for key, entry in entries.items() if key not in own}
    known = [name for name in (*parameters_of(target), *owned, "name") if name not in (*block.runtime, inline)]
    strange = [key for key in rest if key not in parameters_of(target)]
    for key in strange:
        _unknown_key(rest.pop(key), path, key, target, known, (), problems, owner)
    call = _bind(name, path, target, block.runtime, problems, rest)
    return call if call is INVALID else replace(call, deferred=True), path, own


def _unknown_key(
    node: Node,
    path: str,
    key: str,
    target: Callable[..., Any],
    known: list[str],
    runtime: tuple[str, ...],
    problems: Problems,
    owner: Callable[..., Any] | None = None,
) -> None:
    here = f"{path}.{key}" if path else key
    reason = legacy.reason(target.__name__, key) or (legacy.reason(owner.__name__, key) if owner else None)
    if reason:
        problems.warnings.append(f"{node.where}: {here}: {reason}")
    elif key in runtime:
        problems.error(node, here, f"{target.__name__} gets '{key}' from the framework; remove it")
    elif not path and key in legacy.UNSUPPORTED_SECTIONS:
        problems.error(node, here, f"this section is not supported yet ({legacy.UNSUPPORTED_SECTIONS[key]}); remove it")
    else:
        what = f"{target.__name__} has no parameter" if path else "there is no section"
        place = problems.elsewhere(key, path)
        names = [name for name in known if name not in runtime]
        advice = f"; it belongs under '{place}'" if place else suggestion(key, names)
        problems.error(node, here, f"{what} '{key}'{advice}")


def _parse_named(node: Node, path: str, block: Block, deferred: bool, problems: Problems) -> Any:
    """A block that names its callable: ``{name: X, a: 1}``, ``{X: {a: 1}}`` or just ``X``."""
    name, path, entries = _named(node, path, block, problems)
    if name is None:
        return INVALID
    call = _bind(name, path, block.registry[name.value], block.runtime, problems, entries)
    return call if call is INVALID else replace(call, deferred=deferred)


def _named(node: Node, path: str, block: Block, problems: Problems) -> tuple[Node | None, str, dict[str, Node]]:
    """The registered name in a block (``None`` after noting an error), the path inside it, and its parameters."""
    registry = block.registry
    name, entries = _split_name(node, path, block, problems)
    if name is None:
        return None, path, entries
    if name.value not in registry:
        advice = suggestion(name.value, registry) or "; tools/list.py lists them"
        problems.error(name, path, f"unknown {registry.noun} '{name.value}'{advice}")
        return None, path, entries
    spelt_as_key = isinstance(node.value, dict) and name.value in node.value and "name" not in node.value
    return name, f"{path}.{name.value}" if spelt_as_key else path, entries


def _split_name(node: Node, path: str, block: Block, problems: Problems) -> tuple[Node | None, dict[str, Node]]:
    noun = block.registry.noun
    if isinstance(node.value, str):
        return node, {}
    if not isinstance(node.value, dict):
        problems.error(node, path, f"expected the name of a {noun} and its parameters, got {shown(node)}")
        return None, {}
    entries = dict(node.value)
    if "name" in entries:
        name = entries.pop("name")
        if not isinstance(name.value, str):
            problems.error(name, f"{path}.name", f"expected the name of a {noun}, got {shown(name)}")
            return None, entries
        return name, entries
    blocks = [key for key, entry in entries.items() if entry.value is None or isinstance(entry.value, dict)]
    if len(entries) == 1 and blocks:
        return Node(blocks[0], entries[blocks[0]].where), dict(entries[blocks[0]].value or {})
    if len(entries) == 1 and next(iter(entries)) in block.registry:
        name, entry = next(iter(entries.items()))
        problems.error(entry, f"{path}.{name}", f"expected the parameters of {name}, got {shown(entry)}")
        return None, {}
    if blocks and blocks[0] in block.registry:
        stray = next(key for key in entries if key != blocks[0])
        text = f"'{stray}' stands beside '{blocks[0]}', not inside it; indent it, or make it an item of its own"
        problems.error(entries[stray], path, text)
        return None, {}
    if block.default:
        return Node(block.default, node.where), entries
    near = next((key for key in entries if nearest(key, ["name"])), None)
    if near:
        problems.error(entries.pop(near), f"{path}.{near}", f"there is no parameter '{near}'; did you mean 'name'?")
    else:
        problems.error(node, path, f"'name' is missing; it says which {noun} is meant")
    return None, entries


def _block(hint: Any, inline: bool | None = None) -> Any:
    """The `Block` that a hint carries, or ``None``; a plain registry is a block with nothing special."""
    mark = get_args(hint)[1] if get_origin(hint) is Annotated else None
    if isinstance(mark, Registry):
        mark = Block(mark)
    return mark if isinstance(mark, Block) and (inline is None or mark.inline == inline) else None


def _parse_annotated(node: Node, path: str, base: Any, mark: Any, problems: Problems) -> Any:
    block = _block(Annotated[base, mark])
    if block is None:
        value = parse(node, path, base, problems)
        if isinstance(mark, Within) and isinstance(value, (int, float)) and value not in mark:
            return problems.error(node, path, f"expected {mark}; got {value}")
        return value
    if get_origin(base) is list:
        item_type = get_args(base)[0]
        if not isinstance(node.value, list):
            return problems.error(node, path, f"expected a list of {block.registry.noun}s, got {shown(node)}")
        deferred = item_type is Call
        items = [
            _parse_named(item, f"{path}.{index}", block, deferred, problems) for index, item in enumerate(node.value)
        ]
        return INVALID if any(item is INVALID for item in items) else items
    return _parse_named(node, path, block, base is Call, problems)


def _parse_union(node: Node, path: str, members: tuple[Any, ...], problems: Problems) -> Any:
    # PaddleClas: "None" as text means null wherever null is allowed.
    if type(None) in members and node.value in (None, "None"):
        return None
    attempts = []
    for member in members:
        attempt = Problems(elsewhere=problems.elsewhere)
        value = parse(node, path, member, attempt)
        if not attempt.errors:
            problems.warnings.extend(attempt.warnings)
            return value
        attempts.append((member, attempt))
    structured = [attempt for member, attempt in attempts if _fits_shape(node, member)]
    if (
        len(structured) == 1
    ):  # the only member of the value's shape is what was meant, so its errors are the useful ones
        problems.errors.extend(structured[0].errors)
        return INVALID
    return problems.error(node, path, f"expected {' or '.join(map(type_name, members))}; got {shown(node)}")


def _fits_shape(node: Node, hint: Any) -> bool:
    base = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if isinstance(node.value, dict):
        return base in (Call, Callable, dict) or (isinstance(base, type) and is_dataclass(base))
    if isinstance(node.value, list):
        return get_origin(base) in (list, tuple, Sequence)
    return isinstance(node.value, base) if isinstance(base, type) else get_origin(base) is Literal


def _parse_literal(node: Node, path: str, allowed: tuple[Any, ...], problems: Problems) -> Any:
    value = node.value
    if isinstance(value, (str, int, float, type(None))):
        for choice in allowed:
            if value == choice and isinstance(value, bool) == isinstance(choice, bool):
                return choice
    if len(allowed) == 1:
        return problems.error(node, path, f"only {allowed[0]!r} is supported; got {shown(node)}")
    advice = (
        suggestion(value, [choice for choice in allowed if isinstance(choice, str)]) if isinstance(value, str) else ""
    )
    return problems.error(node, path, f"expected one of {', '.join(map(_text, allowed))}; got {shown(node)}{advice}")


def _parse_list(node: Node, path: str, origin: Any, arguments: tuple[Any, ...], problems: Problems) -> Any:
    if not isinstance(node.value, list):
        return problems.error(node, path, f"expected {type_name(origin[arguments])}; got {shown(node)}")
    fixed = origin is tuple and arguments[-1:] != (...,)
    if fixed and len(node.value) != len(arguments):
        return problems.error(node, path, f"expected {len(arguments)} values; got {len(node.value)}")
    types = arguments if fixed else [arguments[0]] * len(node.value)
    items = [
        parse(item, f"{path}.{index}", hint, problems) for index, (item, hint) in enumerate(zip(node.value, types))
    ]
    if any(item is INVALID for item in items):
        return INVALID
    return tuple(items) if origin is tuple else items


def _parse_scalar(node: Node, path: str, hint: Any, problems: Problems) -> Any:
    value = node.value
    if hint is Any or hint is object:
        return node.plain()
    if hint is float:
        number = _number(value)
        if number is not None:
            return number
    elif hint is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif hint in (bool, str, dict, list, tuple, type(None), None):
        if isinstance(value, hint or type(None)) or (hint is tuple and isinstance(value, list)):
            return node.plain()
    elif hint in (Opaque, Callable) or isinstance(hint, type):
        return problems.error(node, path, "cannot be given in YAML; remove it")
    quotes = "; put it in quotes to make it text" if hint is str and not isinstance(value, (dict, list)) else ""
    return problems.error(node, path, f"expected {type_name(hint)}; got {shown(node)}{quotes}")


def _number(value: Any) -> float | None:
    # PaddleClas: YAML 1.1 reads 1e-8 as text, and 1.0/255.0 is written for the scale of NormalizeImage.
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    match = FRACTION.fullmatch(value) if isinstance(value, str) else None
    if not match or (match[2] and float(match[2]) == 0):
        return None
    return float(match[1]) / float(match[2]) if match[2] else float(match[1])


def type_name(hint: Any) -> str:
    """A type as a person would say it."""
    names: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    names.update({type(None): "null", None: "null", list: "a list", dict: "a mapping", tuple: "a list"})
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        block = _block(hint)
        if block is None:
            return f"{type_name(arguments[0])} ({arguments[1]})"
        return f"a list of {block.registry.noun}s" if get_origin(arguments[0]) is list else f"a {block.registry.noun}"
    if origin is Union:
        return " or ".join(type_name(item) for item in arguments)
    if origin is Literal:
        return " or ".join(map(_text, arguments))
    if origin in (list, tuple, Sequence):
        return f"a list of ({', '.join(type_name(item) for item in arguments if item is not ...)})"
    if is_dataclass(hint):
        blocks = [_block(item.annotation, inline=True) for item in parameters_of(hint).values()]
        return next((f"a {block.registry.noun}" for block in blocks if block), "a mapping")
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def shown(node: Node) -> str:
    """A value as YAML would show it, short."""
    if isinstance(node.value, dict):
        return f"a mapping with {', '.join(map(repr, list(node.value)[:3])) or 'nothing in it'}"
    if isinstance(node.value, list):
        return f"a list of {len(node.value)}"
    return "null" if node.value is None else _text(node.value)


def _text(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
