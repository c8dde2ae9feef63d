# SPDX-License-Identifier: Apache-2.0
"""A YAML file to a checked `RunConfig`; every problem of the file is reported, together, before anything is built."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from pathlib import Path

from ppcls.config.node import Node, load_tree
from ppcls.config.place import elsewhere
from ppcls.config.schema import RunConfig
from ppcls.config.signature import Problems, nearest, parse
from ppcls.config.trial import try_parts
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
    problems = Problems(elsewhere=elsewhere)
    _import_modules(tree, problems)
    _unlist_optimizer(tree, problems)
    call = parse(tree, "", RunConfig, problems)
    try_parts(problems)
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
        if os.path.isfile(place):
            return place
    if os.path.isdir(path):
        raise ConfigError(f"{path}: this is a folder; name a YAML file in it")
    folder = next((place.parent for place in places if os.path.isdir(place.parent)), Path("."))
    near = nearest(path.name, [item.name for item in sorted(folder.glob("*.yaml"))])
    advice = f"did you mean '{folder / near}'?" if near else "the shipped files are in configs/"
    raise ConfigError(f"{path}: there is no such file; {advice}")


def _import_modules(tree: Node, problems: Problems) -> None:
    section = tree.value.get("Global")
    modules = section.value.get("imports") if section and isinstance(section.value, dict) else None
    for module in modules.value if modules and isinstance(modules.value, list) else []:
        try:
            importlib.import_module(str(module.value))
        except (ImportError, ValueError, TypeError) as error:
            problems.error(module, "Global.imports", f"'{module.value}' cannot be imported ({error})")
        except SystemExit as error:  # without this, nothing would be trained, without a word
            text = f"'{module.value}' ends the program when it is imported (exit code {error.code}); guard what it runs"
            problems.error(module, "Global.imports", f"{text} with if __name__ == '__main__'")


def _unlist_optimizer(tree: Node, problems: Problems) -> None:
    # PaddleClas: a list gives each part of the model its own optimizer; one item of scope all is a usual section.
    section = tree.value.get("Optimizer")
    if section is None or not isinstance(section.value, list):
        return
    if len(section.value) == 1:
        tree.value["Optimizer"] = section.value[0]
    else:
        problems.error(section, "Optimizer", "a list of several optimizers is not supported yet; keep one")
        del tree.value["Optimizer"]
