# SPDX-License-Identifier: Apache-2.0
"""Registries, calls, and what registration refuses."""

import dataclasses

import pytest

from ppcls import arch, loss, metric, optimizer  # noqa: F401
from ppcls.config.annotation import parameters_of
from ppcls.config.place import blocks
from ppcls.config.registry import REGISTRIES, Call, Registry
from ppcls.config.schema import ArchSettings, LossItem, OptimizerSettings
from ppcls.data import all as data  # noqa: F401


def size(height: int, width: int = 3):
    return height, width


def test_a_name_leads_to_what_was_registered():
    registry = Registry("shape")
    assert registry.register(size) is size
    assert registry["size"] is size
    assert "size" in registry
    assert (list(registry), len(registry)) == (["size"], 1)


def test_names_come_in_alphabetical_order():
    registry = Registry("shape")
    for name in ("b", "a"):
        registry.register(type(name, (), {}))
    assert list(registry) == ["a", "b"]


def test_a_duplicate_name_is_refused_with_the_module_that_has_it():
    registry = Registry("shape")
    registry.register(size)
    with pytest.raises(ValueError, match=f"^the shape 'size' is already registered by {__name__}$"):
        registry.register(size)


def test_variable_keywords_are_refused():
    def loose(a, **rest): ...

    message = r"^the shape 'loose' takes \*rest; name its parameters, so that a typo cannot hide$"
    with pytest.raises(ValueError, match=message):
        Registry("shape").register(loose)


def test_variable_positions_are_refused():
    class Loose:
        def __init__(self, *sizes): ...

    with pytest.raises(ValueError, match=r"'Loose' takes \*sizes"):
        Registry("shape").register(Loose)


@pytest.mark.parametrize(
    ("noun", "one", "plural"),
    [
        ("architecture", "an architecture", "architectures"),
        ("loss", "a loss", "losses"),
        ("dataset", "a dataset", "datasets"),
    ],
)
def test_a_noun_is_inflected(noun, one, plural):
    registry = Registry(noun)
    assert (registry.one, registry.plural) == (one, plural)


def test_calling_a_call_adds_the_runtime_arguments():
    assert Call(size, {"height": 1})(width=2) == (1, 2)


def test_calls_among_the_arguments_are_built_first():
    inner = Call(size, {"height": 1})
    assert Call(size, {"height": inner, "width": [inner]})() == ((1, 3), [(1, 3)])


def test_a_deferred_call_arrives_unbuilt():
    inner = Call(size, {"height": 1}, deferred=True)
    assert Call(size, {"height": inner})() == (inner, 3)


def test_a_call_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Call(size).target = print


def test_no_key_belongs_to_both_a_block_and_what_it_names():
    for owner in (ArchSettings, LossItem, OptimizerSettings):
        (block,) = [block for block in blocks(owner) if block.inline]
        own = set(parameters_of(owner))
        for name in block.registry:
            shared = own & set(parameters_of(block.registry[name])) - set(block.runtime)
            assert not shared, f"{owner.__name__} and {name} both have {shared}"


def test_no_registered_callable_has_a_parameter_called_name_that_yaml_could_give():
    runtime = {id(block.registry): block.runtime for block in blocks()}
    for registry in REGISTRIES.values():
        for entry in registry:
            names = set(parameters_of(registry[entry])) - set(runtime.get(id(registry), ()))
            assert "name" not in names, f"the {registry.noun} {entry}: 'name' says in YAML which one is meant"


def test_every_registered_callable_says_in_its_docstring_what_it_is():
    for registry in REGISTRIES.values():
        for entry in registry:
            assert (registry[entry].__doc__ or "").strip(), f"{registry.noun} {entry}"
