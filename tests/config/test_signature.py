# SPDX-License-Identifier: Apache-2.0
"""Values held against types, and blocks against signatures; the messages are asserted word for word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Optional

import paddle
import pytest

from ppcls.config.annotation import Opaque, parameters_of
from ppcls.config.node import Node, load_tree
from ppcls.config.registry import Block, Call, Registry, Within
from ppcls.config.signature import INVALID, Problems, nearest, parse, suggestion

SHAPES = Registry("shape")


@SHAPES.register
class Square:
    def __init__(self, size: int, seed: int = 0, label: str | None = None): ...


@SHAPES.register
class Group:
    def __init__(self, items: Annotated[list[Callable], SHAPES]):
        self.items = items


@dataclass(frozen=True)
class Owner:
    shape: Annotated[Call, Block(SHAPES, runtime=("seed",), inline=True)]
    weight: float = 1.0


SHAPE = Annotated[Callable, Block(SHAPES, runtime=("seed",))]
DEFAULT = Annotated[Callable, Block(SHAPES, default="Square")]


@pytest.fixture
def read(write):
    """Parse the value of ``a`` in a YAML text by a type; give the value and the errors."""

    def parsed(text, hint):
        problems = Problems()
        value = parse(load_tree(write(text)).value["a"], "a", hint, problems)
        assert (value is INVALID) == bool(problems.errors)
        return value, problems.errors

    return parsed


@pytest.mark.parametrize(
    ("text", "hint", "expected"),
    [
        ("1e-8", float, 1e-8),
        ("2E5", float, 2e5),
        ("1.0/255.0", float, 1 / 255),
        ("1/4", float, 0.25),
        (" -1.5 / 3 ", float, -0.5),
        ("3", float, 3.0),
        (".inf", float, float("inf")),
        ("1e-8", str, "1e-8"),
        ("1.0/255.0", str, "1.0/255.0"),
        ("1e-8", Any, "1e-8"),
        ("1.0/255.0", Optional[float], 1 / 255),
        ("3", int, 3),
        ("true", bool, True),
        ("hello", str, "hello"),
        ("''", str, ""),
        ("[1, 1/2]", list[float], [1.0, 0.5]),
        ("[1, 2]", tuple[int, int], (1, 2)),
        ("[1, 2, 3]", tuple[int, ...], (1, 2, 3)),
        ("[1, 2]", Sequence[int], [1, 2]),
        ("[1, {b: 2}]", list, [1, {"b": 2}]),
        ("{b: [1]}", dict, {"b": [1]}),
        ("-1", Literal[-1, 0, 1], -1),
        ("''", Literal["", "hwc"], ""),
        ("None", Literal[None, "x"], None),
        ("5", Annotated[int, Within(1)], 5),
    ],
)
def test_a_value_that_fits_comes_back_as_its_type(read, text, hint, expected):
    value, errors = read(f"a: {text}\n", hint)
    assert errors == []
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("text", "hint", "expected"),
    [
        ("x", int, "expected a whole number; got 'x'"),
        ("1.0", int, "expected a whole number; got 1.0"),
        ("1e3", int, "expected a whole number; got '1e3'"),
        ("true", int, "expected a whole number; got true"),
        ("true", float, "expected a number; got true"),
        ("1/0", float, "expected a number; got '1/0'"),
        ("1/2/3", float, "expected a number; got '1/2/3'"),
        ("1+1", float, "expected a number; got '1+1'"),
        ("1e999", float, "expected a number; got '1e999'"),
        (".nan", float, "expected a number; got nan"),
        ("1" + "0" * 99 + "", Literal["a"], "only 'a' is supported; got 1" + "0" * 76 + "..."),
        ("1", bool, "expected true or false; got 1"),
        ("'yes'", bool, "expected true or false; got 'yes'"),
        ("224", str, "expected text; got 224; put it in quotes to make it text"),
        ("2001-01-01", str, "expected text; got the date 2001-01-01; put it in quotes to make it text"),
        ("[a]", str, "expected text; got a list of 1"),
        ("{b: 1}", str, "expected text; got a mapping with 'b'"),
        ("null", str, "expected text; got null"),
        ("3", list[int], "expected a list of (a whole number); got 3"),
        ("[1, 2]", tuple[int, int, int], "expected 3 values; got 2"),
        ("7", Literal[-1, 0, 1], "expected one of -1, 0, 1; got 7"),
        ("true", Literal[0, 1], "expected one of 0, 1; got true"),
        ("area", Literal["nearest", "bilinear"], "expected one of 'nearest', 'bilinear'; got 'area'"),
        ("true", Literal[False], "only false is supported; got true"),
        ("x", Literal[None], "only null is supported; got 'x'"),
        ("0", Annotated[int, Within(1)], "expected at least 1; got 0"),
        ("2", Annotated[float, Within(0, 1)], "expected 0 to 1; got 2.0"),
        ("1", Opaque, "cannot be given in YAML; remove it"),
        ("1", Callable, "cannot be given in YAML; remove it"),
        ("1", paddle.Tensor, "cannot be given in YAML; remove it"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_says_what_is_expected(read, text, hint, expected):
    assert read(f"# first\na: {text}\n", hint) == (INVALID, [f"x.yaml:2: a: {expected}"])


def test_every_wrong_item_of_a_list_is_named_with_its_line(read):
    _, errors = read("a:\n  - 1\n  - x\n  - 2\n  - y\n", list[int])
    assert errors == [
        "x.yaml:3: a.1: expected a whole number; got 'x'",
        "x.yaml:5: a.3: expected a whole number; got 'y'",
    ]


def union(a: int | list[int] | Literal["auto"] | None, b: float | paddle.Tensor, c: Annotated[int, Within(1)] | None):
    """Its parameters are the unions of the tests below."""


UNIONS = {name: item.annotation for name, item in parameters_of(union).items()}


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("3", "a", 3),
        ("[3]", "a", [3]),
        ("auto", "a", "auto"),
        ("null", "a", None),
        ("None", "a", None),
        ("1", "b", 1.0),
    ],
)
def test_a_value_may_fit_any_member_of_a_union(read, text, name, expected):
    assert read(f"a: {text}\n", UNIONS[name]) == (expected, [])


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("1.5", "a", "a: expected a whole number or a list of (a whole number) or 'auto' or null; got 1.5"),
        ("[x]", "a", "a.0: expected a whole number; got 'x'"),
        ("x", "b", "a: expected a number; got 'x'"),
        ("0", "c", "a: expected at least 1; got 0"),
    ],
)
def test_the_error_of_a_union_is_that_of_the_member_that_was_meant(read, text, name, expected):
    assert read(f"a: {text}\n", UNIONS[name]) == (INVALID, [f"x.yaml:1: {expected}"])


# Blocks


@pytest.mark.parametrize(
    "text", ["a: {name: Square, size: 3}\n", "a:\n  Square: {size: 3}\n", "a:\n  name: Square\n  size: 3\n"]
)
def test_a_block_may_name_its_callable_in_two_spellings(read, text):
    call, errors = read(text, SHAPE)
    assert errors == []
    assert (call.target, call.kwargs) == (Square, {"size": 3})


def test_a_block_without_parameters_may_be_null_or_just_the_name(read):
    for text in ("a: [Group: {items: [{Square: {size: 1}}]}]\n", "a:\n  - Group:\n      items: [Square: {size: 1}]\n"):
        assert read(text, Annotated[list[Callable], SHAPES])[1] == []
    needs = ["x.yaml:1: a.Square: Square needs 'size', which has no default"]
    assert read("a: {Square: null}\n", SHAPE)[1] == needs
    assert read("a: Square\n", SHAPE)[1] == ["x.yaml:1: a: Square needs 'size', which has no default"]


def test_nested_blocks_become_nested_calls(read):
    call, errors = read("a:\n  Group:\n    items:\n      - Square: {size: 1}\n      - Square: {size: 2}\n", SHAPE)
    assert errors == []
    assert [item.kwargs["size"] for item in call.kwargs["items"]] == [1, 2]
    assert [item.where for item in call.kwargs["items"]] == ["x.yaml:4", "x.yaml:5"]


def test_a_call_knows_the_lines_of_its_block_and_of_each_argument(read):
    call, _ = read("a:\n  name: Square\n  label: x\n  size: 3\n", SHAPE)
    assert (call.where, call.origins) == ("x.yaml:2", {"size": "x.yaml:4", "label": "x.yaml:3"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{name: Sqare, size: 1}", "1: a: unknown shape 'Sqare'; did you mean 'Square'?"),
        ("{name: xyz}", "1: a: unknown shape 'xyz'; it may be Group, Square"),
        ("{Sqare: {size: 1}}", "1: a: unknown shape 'Sqare'; did you mean 'Square'?"),
        ("{nmae: Square, size: 1}", "1: a.nmae: there is no parameter 'nmae'; did you mean 'name'?"),
        ("{size: 1, label: x}", "1: a: 'name' is missing; it says which shape is meant"),
        ("{name: 3}", "1: a.name: expected the name of a shape, got 3"),
        ("3", "1: a: expected the name of a shape and its parameters, got 3"),
        ("{Square: 3}", "1: a.Square: expected the parameters of Square, got 3"),
        ("{name: Square, size: 1, lable: x}", "1: a.lable: Square has no parameter 'lable'; did you mean 'label'?"),
        ("{name: Square, size: 1, zzz: x}",
         "1: a.zzz: Square has no parameter 'zzz'; it may be size, label, name"),
        ("{name: Square, siez: 1}", "1: a.siez: Square has no parameter 'siez'; did you mean 'size'?"),
        ("{name: Square, size: 1, seed: 2}", "1: a.seed: Square gets 'seed' from the framework; remove it"),
        ("\n  - Square", "1: a: expected the name of a shape and its parameters, got a list of 1"),
        ("\n  Square:\n  size: 3", "3: a: 'size' stands beside 'Square', not inside it; "
         "indent it, or make it an item of its own"),
    ],
)  # fmt: skip
def test_a_wrong_block_says_what_is_wrong(read, text, expected):
    assert read(f"a: {text}\n", SHAPE) == (INVALID, [f"x.yaml:{expected}"])


def test_a_block_in_place_of_a_list_of_blocks_is_refused(read):
    _, errors = read("a: {Square: {size: 1}}\n", Annotated[list[Callable], SHAPES])
    assert errors == ["x.yaml:1: a: expected a list of shapes, got a mapping with 'Square'"]


def test_all_mistakes_of_a_block_are_reported(read):
    _, errors = read("a:\n  name: Square\n  size: x\n  lable: y\n", SHAPE)
    assert errors == [
        "x.yaml:4: a.lable: Square has no parameter 'lable'; did you mean 'label'?",
        "x.yaml:3: a.size: expected a whole number; got 'x'",
    ]


def test_a_block_with_a_default_needs_no_name(read):
    assert read("a: {size: 3}\n", DEFAULT)[0].target is Square
    assert read("a: {Group: {items: []}}\n", DEFAULT)[0].target is Group


def test_a_misspelt_name_is_not_taken_for_the_default(read):
    _, errors = read("a: {nam: Group, items: []}\n", DEFAULT)
    assert errors == ["x.yaml:1: a.nam: there is no parameter 'nam'; did you mean 'name'?"]


def test_owner_and_named_callable_share_a_block(read):
    call, errors = read("a:\n  name: Square\n  size: 3\n  weight: 1/2\n", Owner)
    assert errors == []
    assert (call.target, call.kwargs["weight"], call.origins) == (Owner, 0.5, {"weight": "x.yaml:4"})
    assert (call.kwargs["shape"].target, call.kwargs["shape"].kwargs) == (Square, {"size": 3})


def test_the_inner_call_of_a_shared_block_reaches_its_owner_unbuilt(read):
    owner = read("a: {Square: {size: 3, weight: 2}}\n", Owner)[0]()
    assert (owner.shape.target, owner.weight) == (Square, 2.0)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("wieght", "Square has no parameter 'wieght'; did you mean 'weight'?"),
        ("lable", "Square has no parameter 'lable'; did you mean 'label'?"),
        ("shape", "Square has no parameter 'shape'; it may be size, label, weight, name"),
        ("seed", "Square gets 'seed' from the framework; remove it"),
    ],
)
def test_a_wrong_key_of_a_shared_block_is_held_against_both(read, key, expected):
    _, errors = read(f"a: {{name: Square, size: 3, {key}: 1}}\n", Owner)
    assert errors == [f"x.yaml:1: a.{key}: {expected}"]


def test_the_default_of_a_parameter_stays_in_the_signature(read):
    call, _ = read("a: {name: Square, size: 3}\n", SHAPE)
    assert "label" not in call.kwargs


@pytest.mark.parametrize(
    ("word", "names", "expected"),
    [
        ("epohcs", ["epochs", "eval_interval"], "epochs"),
        ("EPOCHS", ["epochs"], "epochs"),
        ("nam", ["momentum", "name"], "name"),
        ("vaules", ["name", "values", "learning_rate"], "values"),
        ("siz", ["scale", "size", "resize_short"], "size"),
        ("lr_", ["lr", "lr_ratio"], "lr"),
        ("zzz", ["epochs"], None),
        ("x", [], None),
    ],
)
def test_the_nearest_name_is_the_one_a_slip_away(word, names, expected):
    assert nearest(word, names) == expected


def test_without_a_near_name_a_short_list_is_shown_and_a_long_one_is_not():
    assert suggestion("zzz", ["a", "b"]) == "; it may be a, b"
    assert suggestion("zzz", map(str, range(13))) == ""
    assert suggestion("zzz", []) == ""


def test_problems_know_every_part_that_was_read(write):
    problems = Problems()
    parse(load_tree(write("a:\n  Group:\n    items: [{Square: {size: 1}}]\n")).value["a"], "a", SHAPE, problems)
    assert [(path, call.name) for path, call in problems.parts] == [
        ("a.Group.items.0.Square", "Square"),
        ("a.Group", "Group"),
    ]


def test_a_node_can_be_made_without_a_file():
    assert parse(Node("1/2", "-o x=1/2"), "x", float, Problems()) == 0.5
