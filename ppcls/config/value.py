# SPDX-License-Identifier: Apache-2.0
"""Single YAML values held against a type, and both in words."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Sequence
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from ppcls.config.annotation import UNIONS, parameters_of
from ppcls.config.node import Node
from ppcls.config.problem import Problems
from ppcls.config.registry import block_of

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
FRACTION = re.compile(rf"\s*({NUMBER})\s*(?:/\s*({NUMBER})\s*)?")

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "null",
    None: "null",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
    Any: "any value",
}


def parse_literal(node: Node, path: str, allowed: tuple[Any, ...], problems: Problems) -> Any:
    """One of the allowed values, or ``INVALID`` after noting an error."""
    # PaddleClas: "None" as text means null wherever null is allowed.
    value = None if node.value == "None" and None in allowed else node.value
    if isinstance(value, (str, int, float, type(None))):
        for choice in allowed:
            if value == choice and isinstance(value, bool) == isinstance(choice, bool):
                return choice
    if len(allowed) == 1:
        return problems.error(node, path, f"only {_text(allowed[0])} is supported; got {shown(node)}")
    return problems.error(node, path, f"expected one of {', '.join(map(_text, allowed))}; got {shown(node)}")


def parse_scalar(node: Node, path: str, hint: Any, problems: Problems) -> Any:
    """The value as a type without parts, or ``INVALID`` after noting an error."""
    value = node.value
    if hint is Any or hint is object:
        return node.plain()
    if not is_expressible(hint):
        return problems.error(node, path, "cannot be given in YAML; remove it")
    if hint is float:
        number = _number(value)
        if number is not None:
            return number
    elif hint is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif isinstance(value, hint or type(None)) or (hint is tuple and isinstance(value, list)):
        return node.plain()
    is_unquoted = hint is str and not isinstance(value, (dict, list, type(None)))
    quotes = "; put it in quotes to make it text" if is_unquoted else ""
    return problems.error(node, path, f"expected {type_name(hint)}; got {shown(node)}{quotes}")


def is_expressible(hint: Any) -> bool:
    """Whether some YAML value could be of the type; none is a tensor or a function."""
    return hint in _WORDS or hint is object or get_origin(hint) in (Annotated, Literal, list, tuple, Sequence, *UNIONS)


def _number(value: Any) -> float | None:
    # PaddleClas: YAML 1.1 reads 1e-8 as text, and 1.0/255.0 is written for the scale of NormalizeImage.
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return None if math.isnan(value) else float(value)
        match = FRACTION.fullmatch(value) if isinstance(value, str) else None
        number = float(match[1]) / float(match[2] or 1) if match else math.nan
    except (OverflowError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) else None


def type_name(hint: Any) -> str:
    """A type as a person would say it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        block = block_of(hint)
        if block is None:
            return f"{type_name(arguments[0])} ({arguments[1]})"
        return f"a list of {block.registry.plural}" if get_origin(arguments[0]) is list else block.registry.one
    if origin in UNIONS:
        return " or ".join(type_name(item) for item in arguments if is_expressible(item) or is_dataclass(item))
    if origin is Literal:
        return " or ".join(map(_text, arguments))
    if origin in (list, tuple, Sequence):
        return f"a list of ({', '.join(type_name(item) for item in arguments if item is not ...)})"
    if isinstance(hint, type) and is_dataclass(hint):
        blocks = [block_of(item.annotation, inline=True) for item in parameters_of(hint).values()]
        return next((block.registry.one for block in blocks if block), "a mapping")
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def shown(node: Node) -> str:
    """A value as YAML would show it, short."""
    if isinstance(node.value, dict):
        return f"a mapping with {', '.join(map(repr, list(node.value)[:3])) or 'nothing in it'}"
    if isinstance(node.value, list):
        return f"a list of {len(node.value)}"
    return _text(node.value)


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, datetime.date):
        return f"the date {value}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
