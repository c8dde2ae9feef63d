# SPDX-License-Identifier: Apache-2.0
"""Every file in configs/ parses, and so does the YAML example of every registered part."""

import inspect
import textwrap
from pathlib import Path
from typing import Annotated

import pytest
import yaml

import ppcls.engine  # noqa: F401  (registers every part)
from ppcls.config import load_config
from ppcls.config.node import load_tree
from ppcls.config.place import blocks
from ppcls.config.registry import REGISTRIES, Call
from ppcls.config.resolved import resolved_text
from ppcls.config.schema import ArchSettings, LossItem
from ppcls.config.signature import Problems, parse

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
BASES = sorted((CONFIGS / "_base_").rglob("*.yaml"))
FILES = sorted(set(CONFIGS.rglob("*.yaml")) - set(BASES))
# What no file names: train_mode and eval_mode choose them.
NOT_IN_YAML = ("TRAIN_STEPS", "EVALUATORS")
PARTS = [
    pytest.param(kind, name, id=name)
    for kind, registry in REGISTRIES.items()
    for name in registry
    if kind not in NOT_IN_YAML
    and registry[name].__module__.startswith("ppcls.")
    # The sizes of one family differ in nothing that a file would show.
    and not (kind == "ARCHS" and inspect.isfunction(registry[name]))
]


def test_there_are_files_and_parts():
    assert FILES and BASES and len(PARTS) > 15


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_file_parses_without_a_warning(path):
    assert load_config(path).warnings == ()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_resolved_text_means_the_same(path, tmp_path):
    text = resolved_text(load_config(path).call)
    (tmp_path / "resolved.yaml").write_text(text, encoding="utf-8")
    again = resolved_text(load_config(tmp_path / "resolved.yaml").call)
    assert yaml.safe_load(again) == yaml.safe_load(text)


@pytest.mark.parametrize("path", BASES, ids=lambda path: path.name)
def test_every_base_is_started_from(path):
    load_tree(path)
    lines = [line for file in CONFIGS.rglob("*.yaml") for line in file.read_text(encoding="utf-8").splitlines()]
    assert any(line.startswith("_base_:") and path.name in line for line in lines)


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_docstring_example_of_every_part_parses(kind, name, tmp_path):
    registry = REGISTRIES[kind]
    before, mark, example = (inspect.getdoc(registry[name]) or "").partition("YAML::\n\n")
    assert mark, f"{name} has no YAML example in its docstring"
    example = textwrap.dedent(example).split("\n\n")[0]
    (tmp_path / "example.yaml").write_text("example:\n" + textwrap.indent(example, "  "), encoding="utf-8")
    node = load_tree(tmp_path / "example.yaml").value["example"]
    if isinstance(node.value, list):
        (node,) = node.value
    elif "name" not in node.value and name not in node.value:
        (node,) = node.value.values()  # under the name of its section, such as lr or Arch

    problems = Problems()
    part = parse(node, name, hint_of(registry), problems)
    assert problems.errors == [] and problems.warnings == []
    if part.inline:
        part = part.kwargs[part.inline]
    assert part.target is registry[name]


def hint_of(registry):
    """The type that a file's block of this kind is read by."""
    section = {REGISTRIES["LOSSES"]: LossItem, REGISTRIES["ARCHS"]: ArchSettings}.get(registry)
    if section:
        return section
    return Annotated[Call, next((block for block in blocks() if block.registry is registry), registry)]
