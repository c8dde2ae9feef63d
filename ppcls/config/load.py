# SPDX-License-Identifier: Apache-2.0
"""A YAML file to a checked `RunConfig`; every problem of the file is reported, together, before anything is built."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from ppcls.config.annotation import parameters_of
from ppcls.config.node import Node, load_tree
from ppcls.config.registry import LOSSES, METRICS, SCHEDULES, TRANSFORMS, Block, Call
from ppcls.config.schema import RunConfig
from ppcls.config.signature import Problems, nearest, parse
from ppcls.utils.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[2]


def load_config(path: str | os.PathLike, overrides: Iterable[str] = ()) -> RunConfig:
    """Read, merge, override and check one experiment.

    Args:
        path: the YAML file; ``ppcls/configs/X.yaml`` and ``configs/X.yaml`` are found from anywhere.
        overrides: ``key.path=value`` texts, the later winning.

    Raises:
        ConfigError: with one line for every problem found, each with its file and line.
    """
    tree = load_tree(find_config(path), overrides)
    problems = Problems(elsewhere=_elsewhere)
    _import_modules(tree, problems)
    call = parse(tree, "", RunConfig, problems)
    if not problems.errors:
        _try_parts(call, call.kwargs["Global"].kwargs.get("epochs", 1), "", problems)
    if problems.errors:
        raise ConfigError(problems.errors)
    config = call()
    object.__setattr__(config, "call", call)
    object.__setattr__(config, "warnings", tuple(problems.warnings))
    return config


def find_config(path: str | os.PathLike) -> Path:
    """The file that a ``-c`` option means.

    Raises:
        ConfigError: it is not there; names the nearest file of the same folder.
    """
    path = Path(path)
    # PaddleClas: its documents write ppcls/configs/..., where its files lie.
    inside = path.parts[path.parts.index("configs") + 1 :] if "configs" in path.parts else path.parts
    places = [path, REPOSITORY / path, Path("configs", *inside), REPOSITORY.joinpath("configs", *inside)]
    places.append(REPOSITORY.joinpath("ppcls", "configs", *inside))
    for place in places:
        if place.is_file():
            return place
    folder = next((place.parent for place in places if place.parent.is_dir()), Path("."))
    near = nearest(path.name, [item.name for item in sorted(folder.glob("*.yaml"))])
    advice = f"did you mean '{folder / near}'?" if near else "the shipped files are in configs/"
    raise ConfigError(f"{path}: there is no such file; {advice}")


def _import_modules(tree: Node, problems: Problems) -> None:
    section = tree.value.get("Global")
    modules = section.value.get("imports") if section and isinstance(section.value, dict) else None
    for module in modules.value if modules and isinstance(modules.value, list) else []:
        try:
            importlib.import_module(str(module.value))
        except ImportError as error:
            problems.error(module, "Global.imports", f"'{module.value}' cannot be imported ({error})")


def _try_parts(value: Any, epochs: int, path: str, problems: Problems) -> None:
    """Build what costs nothing (transforms, losses, metrics, schedules): constructors check what types cannot say."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            _try_parts(item, epochs, f"{path}.{index}", problems)
    if not isinstance(value, Call):
        return
    for key, item in value.kwargs.items():
        inside = path if key == value.inline else f"{path}.{key}".lstrip(".")
        _try_parts(item, epochs, inside, problems)
    registries = [registry for registry in (TRANSFORMS, LOSSES, METRICS, SCHEDULES) if value.name in registry]
    if not any(registry[value.name] is value.target for registry in registries):
        return
    runtime = {"epochs": epochs, "step_each_epoch": 1000}
    try:
        value(**{key: item for key, item in runtime.items() if key in value.runtime and key in _names(value)})
    except (ValueError, TypeError) as error:
        problems.error(Node(None, value.where), f"{path}: {value.name}", str(error))


def _names(call: Call) -> Iterable[str]:
    return parameters_of(call.target)


def _elsewhere(key: str, path: str) -> str | None:
    """The block that knows a key which stands in the wrong one; the nearest such block when several do."""
    blocks = _places().get(key, ())
    wanted = path.split(".")
    ranked = sorted(blocks, key=lambda block: -len(os.path.commonprefix([block.split("."), wanted])))
    return ranked[0] if ranked and path not in blocks else None


@functools.lru_cache(maxsize=1)
def _places() -> dict[str, list[str]]:
    places: dict[str, list[str]] = {}
    for key, path in _keys_of(RunConfig, ""):
        if path and path not in places.setdefault(key, []):
            places[key].append(path)
    return places


def _keys_of(target: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every key that may stand at a fixed place of a file, with the path of its block."""
    for name, parameter in parameters_of(target).items():
        inside = f"{path}.{name}".lstrip(".")
        inline = False
        for hint in _members(parameter.annotation):
            if is_dataclass(hint):
                yield from _keys_of(hint, inside)
            elif get_origin(hint) is Annotated and isinstance(get_args(hint)[1], Block):
                block = get_args(hint)[1]
                inline = inline or block.inline
                where = path if block.inline else inside
                for entry in block.registry:
                    yield from (
                        (key, where) for key in parameters_of(block.registry[entry]) if key not in block.runtime
                    )
        if not inline:
            yield name, path


def _members(hint: Any) -> Iterable[Any]:
    return get_args(hint) if get_origin(hint) is Union else [hint]
