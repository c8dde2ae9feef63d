# SPDX-License-Identifier: Apache-2.0
"""Signatures as types that YAML values can be checked against."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Optional, Union, get_args, get_origin

import paddle
import pytest

from ppcls.config import annotation
from ppcls.config.annotation import Opaque, parameters_of
from ppcls.config.registry import TRANSFORMS, Block, Within

Layout = Literal["chw", "hwc"]


def types_of(target):
    return {name: item.annotation for name, item in parameters_of(target).items()}


def type_of(target):
    return next(iter(types_of(target).values()))


def test_a_union_written_with_a_bar_is_read_from_its_text():
    def f(a: int | None, b: int | list[int] | None): ...

    assert types_of(f) == {"a": Optional[int], "b": Union[int, list[int], None]}


def test_a_literal_keeps_its_values():
    def f(a: Literal[-1, "x", None, True]): ...

    assert get_args(type_of(f)) == (-1, "x", None, True)


def test_an_alias_of_the_module_is_followed():
    def f(a: Layout | None): ...

    assert type_of(f) == Optional[Layout]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("list[float]", list[float]),
        ("tuple[int, ...]", tuple[int, ...]),
        ("tuple[int, float]", tuple[int, float]),
        ("Sequence[int]", Sequence[int]),
        ("Optional[str]", Optional[str]),
        ("Union[int, str]", Union[int, str]),
        ("dict", dict),
        ("None", None),
        ("Any", Any),
        ("'int'", int),
        ("Callable[[int], str]", Callable),
        ("paddle.Tensor", paddle.Tensor),
        ("Tensor", Opaque),
        ("TypeCheckersOnly | None", Optional[Opaque]),
        ("gone.Tensor", Opaque),
        ("Tensor[int]", Opaque),
        ("float | Tensor", Union[float, Opaque]),
        ("Sequence[Tensor]", Sequence[Opaque]),
        ("1 + 1", Opaque),
    ],
)
def test_a_type_is_read_from_its_text(text, expected):
    def f(a): ...

    f.__annotations__["a"] = text
    assert type_of(f) == expected


def test_a_text_is_never_executed(tmp_path):
    def f(a): ...

    f.__annotations__["a"] = f"__import__('os').mkdir('{tmp_path}/canary')"
    assert type_of(f) is Opaque
    assert not (tmp_path / "canary").exists()


def test_the_marks_of_annotated_are_kept():
    def f(
        size: Annotated[int, Within(1, high=5)],
        ops: Annotated[list[Callable], TRANSFORMS],
        op: Annotated[Callable, Block(TRANSFORMS, runtime=("a", "b"), inline=True)] | None,
    ): ...

    hints = types_of(f)
    assert get_args(hints["size"]) == (int, Within(1, 5))
    assert get_args(hints["ops"]) == (list[Callable], TRANSFORMS)
    assert get_args(get_args(hints["op"])[0])[1] == Block(TRANSFORMS, ("a", "b"), True)


def test_a_parameter_without_annotation_takes_anything():
    def f(a): ...

    assert type_of(f) is Any


def test_a_class_has_the_parameters_of_its_constructor_without_self():
    class Crop:
        def __init__(self, size: int, scale: float | None = None) -> None: ...

    assert types_of(Crop) == {"size": int, "scale": Optional[float]}


@pytest.fixture
def module():
    """Source text to the namespace of a new module."""
    names = []

    def build(name, source):
        fresh = types.ModuleType(name)
        sys.modules[name] = fresh
        names.append(name)
        exec(compile(source, name, "exec", dont_inherit=True), vars(fresh))  # noqa: S102
        return fresh

    yield build
    for name in names:
        del sys.modules[name]


def test_types_that_python_has_evaluated_are_taken_as_they_are(module):
    source = "from typing import Optional, Union\ndef f(a: Optional[int], b: Union[int, str], c: list = None): ...\n"
    assert types_of(module("plain", source).f) == {"a": Optional[int], "b": Union[int, str], "c": list}


@pytest.mark.skipif(sys.version_info < (3, 10), reason="int | None cannot be evaluated before Python 3.10")
def test_an_evaluated_bar_is_a_union(module):
    hint = type_of(module("bar", "def f(a: int | None = 1): ...\n").f)
    assert get_origin(hint) in annotation.UNIONS


def test_an_inherited_constructor_is_read_with_the_names_of_its_own_module(module):
    module("parent", "from __future__ import annotations\nSize = int\nclass A:\n  def __init__(self, a: Size): ...\n")
    child = module("child", "from parent import A\nSize = str\nclass B(A): ...\n")
    assert types_of(child.B) == {"a": int}


def test_paddles_own_optimizers_have_types_that_yaml_can_give():
    hints = types_of(paddle.optimizer.Momentum)
    assert hints["momentum"] == Union[float, Opaque] or hints["momentum"] is float
    assert set(get_args(hints["weight_decay"])) == {float, Opaque, type(None)}
    assert hints["use_nesterov"] is bool
    assert types_of(paddle.optimizer.AdamW)["beta1"] == Union[float, Opaque]


@pytest.mark.parametrize(
    ("within", "inside", "outside", "text"),
    [
        (Within(1), [1, 1.5, 10**9], [0, -1, float("nan")], "at least 1"),
        (Within(high=1), [1, -5], [2], "at most 1"),
        (Within(0, 1), [0, 0.5, 1], [-0.1, 1.1], "0 to 1"),
    ],
)
def test_a_range_includes_its_ends(within, inside, outside, text):
    assert all(value in within for value in inside)
    assert not any(value in within for value in outside)
    assert str(within) == text
