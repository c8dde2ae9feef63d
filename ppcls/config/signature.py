# SPDX-License-Identifier: Apache-2.0
"""A YAML block held against a callable's signature: names, types, ranges, what is missing, what was meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import is_dataclass, replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from ppcls.config import legacy
from ppcls.config.annotation import UNIONS, parameters_of
from ppcls.config.node import BASE, Node
from ppcls.config.problem import INVALID, Problems, is_slip, nearest, suggestion
from ppcls.config.registry import Block, Call, Within, block_of, is_each_key
from ppcls.config.value import parse_literal, parse_scalar, shown, type_name

__all__ = ["INVALID", "Problems", "nearest", "parse", "suggestion"]


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
    if origin in UNIONS:
        return _parse_union(node, path, arguments, problems)
    if origin is Literal:
        return parse_literal(node, path, arguments, problems)
    if origin in (list, tuple, Sequence):
        return _parse_list(node, path, origin, arguments, problems)
    if isinstance(hint, type) and is_dataclass(hint):
        return _bind(node, path, hint, (), problems)
    return parse_scalar(node, path, hint, problems)


def _bind(
    node: Node,
    path: str,
    target: Callable[..., Any],
    runtime: tuple[str, ...],
    problems: Problems,
    entries: dict[str, Node] | None = None,
    siblings: Iterable[str] = (),
    owner: Callable[..., Any] | None = None,
) -> Any:
    """Hold a block against the signature of one callable; give the `Call`.

    ``entries`` are the block's keys when they are not simply those of ``node``; ``siblings`` are keys that
    may stand beside them, for suggestions, and ``owner`` is the callable that takes those.
    """
    if entries is None:
        entries = node.value if node.value is not None else {}
    if not isinstance(entries, dict):
        return problems.error(node, path, f"expected a mapping of parameters, got {shown(node)}")
    before = len(problems.errors)
    parameters = parameters_of(target)
    inline = next((name for name, item in parameters.items() if block_of(item.annotation, inline=True)), None)
    kwargs: dict[str, Any] = {}
    if inline:
        kwargs[inline], path, entries = _bind_named_part(node, path, target, inline, problems)
    listed = next((name for name, item in parameters.items() if is_each_key(item.annotation)), None)
    if listed:
        kwargs[listed] = _parse_keys(entries, path, parameters[listed].annotation, problems)
        entries = {}
    unknown = [key for key in entries if key not in parameters or key in runtime or key == inline]
    known = [name for name in (*parameters, *siblings, *(() if path else (BASE,))) if name not in (*runtime, inline)]
    for key in unknown:
        _unknown_key(entries[key], path, key, [target, *([owner] if owner else [])], known, problems)
    meant = {nearest(key, known) for key in unknown}
    for key, item in parameters.items():
        if key in entries and key not in unknown:
            kwargs[key] = parse(entries[key], f"{path}.{key}" if path else key, item.annotation, problems)
        elif item.default is item.empty and key not in (*runtime, inline, listed, *meant):
            text = (
                f"{_title(target)} needs '{key}', which has no default" if path else f"the section '{key}' is missing"
            )
            problems.error(node, path, text)
    if len(problems.errors) > before:
        return INVALID
    origins = {key: entries[key].where for key in kwargs if key in entries}
    call = Call(target, kwargs, node.where, origins, inline=inline, runtime=runtime)
    problems.parts.append((path, call))
    return call


def _bind_named_part(
    node: Node, path: str, owner: Callable[..., Any], inline: str, problems: Problems
) -> tuple[Any, str, dict[str, Node]]:
    """Split a block that an owner shares with the callable named in it.

    Returns:
        The named callable's `Call` (or ``INVALID``), the path of the block and the owner's own entries.
    """
    owned = parameters_of(owner)
    block = block_of(owned[inline].annotation)
    assert block is not None
    name, path, entries = _named(node, path, block, problems)
    siblings = [key for key in owned if key != inline]
    own = {key: entry for key, entry in entries.items() if key in siblings}
    if name is None:
        return INVALID, path, own
    rest = {key: entry for key, entry in entries.items() if key not in own}
    siblings.append("name")
    call = _bind(name, path, block.registry[name.value], block.runtime, problems, rest, siblings, owner)
    return call if call is INVALID else replace(call, deferred=True), path, own


def _parse_keys(entries: dict[str, Node], path: str, hint: Any, problems: Problems) -> Any:
    """A block whose keys are the items of one list."""
    (item_type,) = get_args(get_args(hint)[0])
    items = [parse(Node({key: entry}, entry.where), path, item_type, problems) for key, entry in entries.items()]
    return INVALID if any(item is INVALID for item in items) else items


def _title(target: Callable[..., Any]) -> str:
    """What messages call a callable: the name that YAML has for it, or for its section."""
    return target.__name__.removesuffix("Settings") if is_dataclass(target) else target.__name__


def _unknown_key(
    node: Node, path: str, key: str, targets: list[Callable[..., Any]], known: list[str], problems: Problems
) -> None:
    here = f"{path}.{key}" if path else key
    reason = next(filter(None, (legacy.reason(target.__name__, key) for target in targets)), None)
    near = nearest(key, known)
    if reason:
        problems.warnings.append(f"{node.where}: {here}: {reason}")
    elif key in parameters_of(targets[0]):
        problems.error(node, here, f"{_title(targets[0])} gets '{key}' from the framework; remove it")
    elif feature := legacy.unsupported(targets[0].__name__, key):
        problems.error(node, here, f"this {'key' if path else 'section'} is not supported yet ({feature}); remove it")
    else:
        what = f"{_title(targets[0])} has no parameter" if path else "there is no section"
        place = None if near and is_slip(key, near) else problems.elsewhere(key, path)
        problems.error(node, here, f"{what} '{key}'{f'; {place}' if place else suggestion(key, known)}")


def _parse_named(node: Node, path: str, block: Block, deferred: bool, problems: Problems) -> Any:
    """A block that names its callable: ``{name: X, a: 1}``, ``{X: {a: 1}}`` or just ``X``."""
    name, path, entries = _named(node, path, block, problems)
    if name is None:
        return INVALID
    call = _bind(name, path, block.registry[name.value], block.runtime, problems, entries, ["name"])
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
    one = block.registry.one
    if isinstance(node.value, str):
        return node, {}
    if not isinstance(node.value, dict):
        problems.error(node, path, f"expected the name of {one} and its parameters, got {shown(node)}")
        return None, {}
    entries = dict(node.value)
    if "name" in entries:
        name = entries.pop("name")
        if not isinstance(name.value, str):
            problems.error(name, f"{path}.name", f"expected the name of {one}, got {shown(name)}")
            return None, entries
        return name, entries
    blocks = [key for key, entry in entries.items() if entry.value is None or isinstance(entry.value, dict)]
    usual = parameters_of(block.registry[block.default]) if block.default and block.default in block.registry else {}
    if len(entries) == 1 and blocks and blocks[0] not in usual:
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
    texts = [key for key, entry in entries.items() if isinstance(entry.value, str) and key not in usual]
    near = nearest("name", texts)
    if block.default and not (near and is_slip(near, "name")):
        return Node(block.default, node.where), entries
    if near:
        problems.error(entries.pop(near), f"{path}.{near}", f"there is no parameter '{near}'; did you mean 'name'?")
    else:
        problems.error(node, path, f"'name' is missing; it says which {block.registry.noun} is meant")
    return None, entries


def _parse_annotated(node: Node, path: str, base: Any, mark: Any, problems: Problems) -> Any:
    block = block_of(Annotated[base, mark])
    if block is None:
        value = parse(node, path, base, problems)
        if isinstance(mark, Within) and isinstance(value, (int, float)) and value not in mark:
            return problems.error(node, path, f"expected {mark}; got {value}")
        return value
    if get_origin(base) is list:
        item_type = get_args(base)[0]
        if not isinstance(node.value, list):
            return problems.error(node, path, f"expected a list of {block.registry.plural}, got {shown(node)}")
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
            problems.adopt(attempt)
            return value
        attempts.append((member, attempt))
    structured = [attempt for member, attempt in attempts if _fits_shape(node, member)]
    if len(structured) == 1:
        # The only member of the value's shape is what was meant, so its errors are the useful ones.
        problems.adopt(structured[0])
        return INVALID
    return problems.error(node, path, f"expected {type_name(Union[members])}; got {shown(node)}")


def _fits_shape(node: Node, hint: Any) -> bool:
    base = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if isinstance(node.value, dict):
        return base in (Call, Callable, dict) or (isinstance(base, type) and is_dataclass(base))
    if isinstance(node.value, list):
        return get_origin(base) in (list, tuple, Sequence)
    if get_origin(base) is Literal:
        return any(type(node.value) is type(choice) for choice in get_args(base))
    # Until Python 3.10 a list[int] says that it is a type, and refuses isinstance.
    return get_origin(base) is None and isinstance(base, type) and isinstance(node.value, base)


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
