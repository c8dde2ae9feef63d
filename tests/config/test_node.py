# SPDX-License-Identifier: Apache-2.0
"""YAML text to a tree that knows its lines; `_base_` and `-o`."""

import os

import pytest
import yaml

from ppcls.config.node import load_tree
from ppcls.utils.errors import ConfigError


def error_of(path, *overrides):
    with pytest.raises(ConfigError) as caught:
        load_tree(path, overrides)
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


def at(tree, path):
    for key in path.split("."):
        tree = tree.value[int(key)] if isinstance(tree.value, list) else tree.value[key]
    return tree


def test_every_node_knows_its_file_and_the_line_of_its_key(write):
    tree = load_tree(write("# comment\na:\n  b:\n    - 1\n    - c: 2\n\n      d: 3\n"))
    wheres = {path: at(tree, path).where for path in ("a", "a.b", "a.b.0", "a.b.1", "a.b.1.c", "a.b.1.d")}
    assert wheres == {
        "a": "x.yaml:2",
        "a.b": "x.yaml:3",
        "a.b.0": "x.yaml:4",
        "a.b.1": "x.yaml:5",
        "a.b.1.c": "x.yaml:5",
        "a.b.1.d": "x.yaml:7",
    }


def test_a_file_outside_the_current_directory_is_named_in_full(write, tmp_path, monkeypatch):
    write("a: 1", "here/x.yaml")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    assert at(load_tree("../here/x.yaml"), "a").where == "../here/x.yaml:1"


def test_values_have_the_types_that_safe_load_gives(write):
    text = "a: [1, 0x10, 1_000, 1.5, .5, 1.0e-3, 1e-3, yes, off, ~, null, '1', 1:30, 2001-01-01, +1, 0o7, 010]\n"
    assert load_tree(write(text)).plain() == yaml.safe_load(text)


def test_an_empty_file_is_an_empty_tree(write):
    assert load_tree(write("# nothing\n")).plain() == {}


def test_a_duplicate_key_names_both_lines(write):
    name = write("a:\n  b: 1\n  c: 2\n  b: 3\n")
    assert error_of(name) == "x.yaml:4: 'b' stands here and at x.yaml:2; remove one of them"


def test_a_key_that_yaml_takes_for_a_boolean_keeps_its_letters(write):
    assert load_tree(write("on: 1\nno: 2\n")).plain() == {"on": 1, "no": 2}


def test_an_alias_is_a_copy_that_an_override_does_not_share(write):
    tree = load_tree(write("a: &x {size: 1}\nb: *x\n"), ["a.size=2"])
    assert tree.plain() == {"a": {"size": 2}, "b": {"size": 1}}


def test_a_merge_key_is_refused_with_the_way_to_share(write):
    name = write("a: &x {b: 1}\nc:\n  <<: *x\n")
    assert error_of(name) == ("x.yaml:3: '<<' is not supported; put the shared part in a file and name it in _base_")


def test_a_missing_file_says_so(write):
    write("")
    assert error_of("y.yaml") == "y.yaml: cannot be read (No such file or directory)"


# _base_


def test_a_base_is_found_beside_the_file_that_names_it(write):
    write("a: 1\nb: 1\n", "shared/base.yaml")
    name = write("_base_: ../shared/base.yaml\nb: 2\n", "own/x.yaml")
    tree = load_tree(name)
    assert tree.plain() == {"a": 1, "b": 2}
    assert (at(tree, "a").where, at(tree, "b").where) == ("shared/base.yaml:1", "own/x.yaml:2")


def test_of_several_bases_the_later_wins(write):
    write("a: 1\nb: 1\n", "one.yaml")
    write("b: 2\nc: 2\n", "two.yaml")
    assert load_tree(write("_base_: [one.yaml, two.yaml]\n")).plain() == {"a": 1, "b": 2, "c": 2}


def test_bases_form_a_chain(write):
    write("a: 1\nb: 1\nc: 1\n", "one.yaml")
    write("_base_: one.yaml\nb: 2\nc: 2\n", "two.yaml")
    assert load_tree(write("_base_: two.yaml\nc: 3\n")).plain() == {"a": 1, "b": 2, "c": 3}


def test_mappings_merge_and_everything_else_replaces(write):
    write("a: {x: 1, y: {z: 1, w: 1}}\nb: [1, 2]\nc: {x: 1}\nd: 1\n", "base.yaml")
    tree = load_tree(write("_base_: base.yaml\na: {y: {z: 2}}\nb: [3]\nc: null\nd: {x: 2}\n"))
    assert tree.plain() == {"a": {"x": 1, "y": {"z": 2, "w": 1}}, "b": [3], "c": None, "d": {"x": 2}}


def test_replace_makes_a_mapping_take_the_place_of_the_inherited_one(write):
    write("a: {x: 1, y: {z: 1}}\n", "base.yaml")
    assert load_tree(write("_base_: base.yaml\na: {_replace_: true, y: {w: 2}}\n")).plain() == {"a": {"y": {"w": 2}}}


def test_replace_without_anything_to_replace_has_no_effect(write):
    assert load_tree(write("a: {_replace_: true, x: 1}\n")).plain() == {"a": {"x": 1}}


def test_replace_may_only_be_true(write):
    assert error_of(write("a:\n  _replace_: 1\n")).startswith("x.yaml:2: _replace_ may only be true")


def test_a_merged_block_stands_where_the_later_file_has_it(write):
    write("a:\n  x: 1\n", "base.yaml")
    assert at(load_tree(write("_base_: base.yaml\n\na:\n  y: 2\n")), "a").where == "x.yaml:3"


def test_a_circle_of_bases_is_refused(write):
    write("_base_: x.yaml\n", "y.yaml")
    message = error_of(write("_base_: y.yaml\n"))
    assert message == "y.yaml:1: _base_: x.yaml leads back to itself through x.yaml, y.yaml"


def test_a_missing_base_is_named_with_the_line_that_asks_for_it(write):
    name = write("a: 1\n_base_:\n  - gone.yaml\n")
    assert error_of(name) == "x.yaml:3: _base_: gone.yaml: cannot be read (No such file or directory)"


@pytest.mark.parametrize("value", ["1", "{a: 1}", "", "[[a]]"])
def test_a_base_that_is_not_a_path_is_refused(write, value):
    message = error_of(write(f"_base_: {value}\n"))
    assert message.startswith("x.yaml:1: _base_: expected a path or a list of paths, found ")


def test_a_base_that_is_a_folder_or_a_device_is_refused(write, tmp_path):
    (tmp_path / "folder").mkdir()
    assert error_of(write("_base_: folder\n")) == "x.yaml:1: _base_: folder: this is not a file"
    assert error_of(write(f"_base_: {os.devnull}\n")).endswith(f"{os.devnull}: this is not a file")


def test_a_base_path_with_a_zero_character_is_refused(write):
    assert "not a path" in error_of(write('_base_: "a\\0b"\n'))


# -o


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a.b=2", 2),
        ("a.b= 2 ", 2),
        ("a.b=x=y", "x=y"),
        ("a.b=null", None),
        ("a.b=", None),
        ("a.b=True", True),
        ("a.b=[1, 2]", [1, 2]),
        ("a.b={c: 1.5}", {"c": 1.5}),
        ("a.b='1'", "1"),
        ("a.b=1e-3", "1e-3"),
        ("a.b=__import__('os').getcwd()", "__import__('os').getcwd()"),
    ],
)
def test_the_value_of_an_override_is_read_as_yaml(write, override, expected):
    tree = load_tree(write("a: {b: 1}\n"), [override])
    assert tree.plain() == {"a": {"b": expected}}
    assert at(tree, "a.b").where == f"-o {override}"


@pytest.mark.parametrize("override", ["a=/data/x #1", "a={b: 1} # c", "a=#1", "a=x #1: y"])
def test_an_override_loses_nothing_to_a_comment(write, override):
    problem = error_of(write("a: 1\n"), override)
    assert problem == f"-o {override}: what follows ' #' would be left out, as YAML's comment; put the value in quotes"


@pytest.mark.parametrize(
    ("override", "value"), [("a='/data/x #1'", "/data/x #1"), ("a=/data/x#1", "/data/x#1"), ('a=["#", 1]', ["#", 1])]
)
def test_an_override_may_have_a_number_sign(write, override, value):
    assert load_tree(write("a: 1\n"), [override]).plain() == {"a": value}


def test_an_override_reaches_into_a_list(write):
    tree = load_tree(write("ops:\n  - Crop: {size: 1}\n  - Flip:\n"), ["ops.1.Flip.code=1", "ops.0.Crop.size=2"])
    assert tree.plain() == {"ops": [{"Crop": {"size": 2}}, {"Flip": {"code": 1}}]}


def test_an_override_creates_the_keys_of_its_path(write):
    assert load_tree(write("a: null\n"), ["a.b.c=1", "d.e=2"]).plain() == {"a": {"b": {"c": 1}}, "d": {"e": 2}}


def test_a_later_override_wins(write):
    assert load_tree(write("a: 1\n"), ["a=2", "a=3"]).plain() == {"a": 3}


def test_an_override_wins_over_a_base(write):
    write("a: {b: 1, c: 1}\n", "base.yaml")
    assert load_tree(write("_base_: base.yaml\n"), ["a.b=2"]).plain() == {"a": {"b": 2, "c": 1}}


@pytest.mark.parametrize("text", ["a.b", "=1", "a..b=1", ".a=1", "", "a.=1"])
def test_an_override_without_key_or_value_says_what_is_expected(write, text):
    message = error_of(write("a: {b: 1}\n"), text)
    assert message == f"-o {text}: expected key.path=value, such as -o Global.epochs=3"


def test_an_override_through_a_single_value_is_refused(write):
    assert error_of(write("a: {b: 1}\n"), "a.b.c=1") == "-o a.b.c=1: a.b is the single value 1 and has no 'c' inside"


@pytest.mark.parametrize("place", ["2", "-1", "x"])
def test_an_override_outside_a_list_shows_what_is_in_it(write, place):
    message = error_of(write("ops: [{Crop: 1}, Flip]\n"), f"ops.{place}=1")
    assert message == f"-o ops.{place}=1: ops is a list of 2 and has no place '{place}'; it has 0: Crop, 1: Flip"


def test_an_override_that_is_not_yaml_is_refused(write):
    assert error_of(write("a: 1\n"), "a=[1").startswith("-o a=[1: not valid YAML: ")


def test_wrong_overrides_are_reported_together(write):
    with pytest.raises(ConfigError) as caught:
        load_tree(write("a: 1\n"), ["a.b=1", "c", "a=2"])
    assert [problem.partition(": ")[0] for problem in caught.value.problems] == ["-o a.b=1", "-o c"]
