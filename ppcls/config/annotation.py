# SPDX-License-Identifier: Apache-2.0
"""The annotations of a callable's parameters, as types that a YAML value can be checked against."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import types
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Optional, Union

UNIONS = (Union, getattr(types, "UnionType", Union))
"""The origins of ``Union[int, None]`` and, from Python 3.10 on, of ``int | None``."""


class Opaque:
    """Stands for a type that YAML cannot give, such as a tensor."""


_NAMES: dict[str, Any] = {
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "list": list,
    "tuple": tuple,
    "dict": dict,
    "Sequence": Sequence,
    "Callable": Callable,
    "Any": Any,
    "Literal": Literal,
    "Union": Union,
    "Optional": Optional,
    "Annotated": Annotated,
}


@functools.cache
def parameters_of(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a class or function by name, each with its annotation resolved to a type.

    Annotations that are text (``from __future__ import annotations``) are read from their syntax,
    not evaluated, so ``int | None`` works on Python 3.9, and a name that exists only for type
    checkers, as Paddle's ``Tensor`` does, becomes `Opaque`.
    """
    # A constructor may be inherited from a class of another module, where its names have their meaning.
    function = getattr(target, "__init__") if isinstance(target, type) else target  # noqa: B009
    scope = getattr(inspect.unwrap(function), "__globals__", None) or vars(sys.modules[target.__module__])
    parameters = inspect.signature(target).parameters.values()
    return {item.name: item.replace(annotation=_resolve(item.annotation, scope)) for item in parameters}


def _resolve(annotation: Any, scope: dict[str, Any]) -> Any:
    if annotation is inspect.Parameter.empty:
        return Any
    if isinstance(annotation, str):
        return _type_of(ast.parse(annotation, mode="eval").body, scope)
    return annotation


def _type_of(tree: ast.expr, scope: dict[str, Any]) -> Any:
    if isinstance(tree, ast.Constant):
        return _resolve(tree.value, scope) if isinstance(tree.value, str) else tree.value
    if isinstance(tree, ast.Name):
        return scope.get(tree.id, _NAMES.get(tree.id, Opaque))
    if isinstance(tree, ast.Attribute):
        owner = _type_of(tree.value, scope)
        return getattr(owner, tree.attr, Opaque) if isinstance(owner, types.ModuleType) else Opaque
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.BitOr):
        return Union[_type_of(tree.left, scope), _type_of(tree.right, scope)]
    if isinstance(tree, ast.Subscript):
        return _subscript(tree, scope)
    return Opaque


def _subscript(tree: ast.Subscript, scope: dict[str, Any]) -> Any:
    base = _type_of(tree.value, scope)
    items = tree.slice.elts if isinstance(tree.slice, ast.Tuple) else [tree.slice]
    if base is Opaque:
        return Opaque
    if base is Literal:
        return Literal[tuple(ast.literal_eval(item) for item in items)]
    if base is Annotated:
        marked = (_type_of(items[0], scope), *(_mark_of(item, scope) for item in items[1:]))
        return Annotated[marked]
    if base is Callable:
        return Callable
    arguments = tuple(... if _is_ellipsis(item) else _type_of(item, scope) for item in items)
    return base[arguments if len(arguments) > 1 else arguments[0]]


def _mark_of(tree: ast.expr, scope: dict[str, Any]) -> Any:
    """What stands behind the type in ``Annotated``: a name, or one call with constants and names in it."""
    if isinstance(tree, ast.Call):
        arguments = [_mark_of(item, scope) for item in tree.args]
        keywords = {str(item.arg): _mark_of(item.value, scope) for item in tree.keywords}
        return _mark_of(tree.func, scope)(*arguments, **keywords)
    if isinstance(tree, ast.Name):
        return scope.get(tree.id, Opaque)
    return ast.literal_eval(tree)


def _is_ellipsis(tree: ast.expr) -> bool:
    return isinstance(tree, ast.Constant) and tree.value is ...
