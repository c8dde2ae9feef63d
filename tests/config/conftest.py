# SPDX-License-Identifier: Apache-2.0
"""YAML files written on the spot, and registrations that end with the test."""

import textwrap

import pytest

from ppcls.config import load_config
from ppcls.utils.errors import ConfigError


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a YAML text to a file of the current directory and return its name."""
    monkeypatch.chdir(tmp_path)

    def write_file(text, name="x.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = textwrap.dedent(text).lstrip("\n") if isinstance(text, str) else text
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return name

    return write_file


@pytest.fixture
def register():
    """Register callables until the end of the test."""
    added = []

    def add(registry, target):
        registry.register(target)
        added.append((registry, target.__name__))
        return target

    yield add
    for registry, name in added:
        del registry._entries[name]


@pytest.fixture
def problems_of(write):
    """The lines of the one `ConfigError` that loading a text (or a file, by name) raises."""

    def problems(text, *overrides):
        name = text if text.endswith(".yaml") else write(text)
        with pytest.raises(ConfigError) as caught:
            load_config(name, overrides)
        return caught.value.problems

    return problems
