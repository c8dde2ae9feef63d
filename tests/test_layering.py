# SPDX-License-Identifier: Apache-2.0
"""Who may import whom, and what no file may contain; held by reading the source, not by running it."""

import ast
from pathlib import Path

import pytest

from ppcls import arch, engine, loss, metric, optimizer  # noqa: F401
from ppcls.config.annotation import parameters_of
from ppcls.config.registry import REGISTRIES
from ppcls.data import all as data  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ppcls"
PARTS = ("arch", "data", "loss", "metric", "optimizer")
SOURCES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "tools").glob("*.py")])
EVERY_FILE = sorted(
    path
    for folder in ("ppcls", "tools", "tests", "benchmarks", "docs", "examples")
    for path in (ROOT / folder).rglob("*.py")
)
TREES = {path: ast.parse(path.read_text("utf-8")) for path in SOURCES}


def named(path):
    return str(path.relative_to(ROOT))


def imports(path):
    """The dotted names that a file imports, wherever in it."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{named(path)}:{node.lineno}: write imports in full, from ppcls on"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importing(folder, forbidden):
    """``file imports name`` for each import in a folder that the predicate forbids."""
    files = [path for path in SOURCES if path.is_relative_to(ROOT / folder)]
    return [f"{named(path)} imports {name}" for path in files for name in imports(path) if forbidden(name)]


def begins_with(name, *packages):
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def calls(path):
    """Each call of a file as (dotted name, node)."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_the_configuration_knows_neither_paddle_nor_the_parts():
    allowed = ("ppcls.config", "ppcls.utils")
    assert (
        importing(
            "ppcls/config",
            lambda name: begins_with(name, "paddle") or begins_with(name, "ppcls") and not begins_with(name, *allowed),
        )
        == []
    )


@pytest.mark.parametrize("part", PARTS)
def test_a_part_knows_nothing_of_the_engine_and_of_the_configuration_only_what_it_registers_with(part):
    allowed = ("ppcls.config.registry",)
    assert (
        importing(
            f"ppcls/{part}",
            lambda name: (
                begins_with(name, "ppcls.engine", "ppcls.deploy")
                or begins_with(name, "ppcls.config")
                and not begins_with(name, *allowed)
            ),
        )
        == []
    )


def test_utils_import_nothing_of_ppcls_but_utils():
    assert (
        importing("ppcls/utils", lambda name: begins_with(name, "ppcls") and not begins_with(name, "ppcls.utils")) == []
    )


def test_the_server_knows_only_what_is_deployed():
    allowed = ("ppcls.serve", "ppcls.deploy", "ppcls.data.images", "ppcls.data.transforms", "ppcls.utils")
    for part in ("export", "fold", "int8", "parity", "process", "to_onnx", "trial"):  # these make bundles
        assert importing("ppcls/serve", lambda name, part=part: begins_with(name, f"ppcls.deploy.{part}")) == []
    assert (
        importing(
            "ppcls/serve",
            lambda name: begins_with(name, "paddle") or begins_with(name, "ppcls") and not begins_with(name, *allowed),
        )
        == []
    )


def test_nothing_but_tools_imports_the_server():
    for folder in ("config", "engine", "deploy", "utils", *PARTS):
        assert importing(f"ppcls/{folder}", lambda name: begins_with(name, "ppcls.serve")) == []


def test_only_tools_are_above_the_engine():
    for folder in (*PARTS, "config", "utils"):
        assert importing(f"ppcls/{folder}", lambda name: begins_with(name, "tools")) == []


@pytest.mark.parametrize("function", ["eval", "exec", "pickle.load", "pickle.loads", "paddle.load", "os.system"])
def test_no_file_calls(function):
    assert [f"{named(path)}:{node.lineno}" for path in SOURCES for name, node in calls(path) if name == function] == []


def test_yaml_is_read_by_safe_loaders_only():
    unsafe = ("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.Loader", "yaml.UnsafeLoader")
    assert [f"{named(path)}:{node.lineno}" for path in SOURCES for name, node in calls(path) if name in unsafe] == []


def test_pickle_is_imported_only_where_it_is_restricted():
    users = {
        named(path) for path in SOURCES for name in imports(path) if begins_with(name, "pickle", "cPickle", "dill")
    }
    assert users <= {"ppcls/utils/unpickle.py"}


def test_only_tools_end_the_process():
    # ppcls/utils/cli.py is what tools end with; a second signal ends a training at once, wherever it is.
    allowed = (PACKAGE / "utils" / "cli.py", PACKAGE / "engine" / "signals.py")
    enders = ("sys.exit", "exit", "quit", "os._exit")
    places = [
        f"{named(path)}:{node.lineno}"
        for path in SOURCES
        if path.is_relative_to(PACKAGE) and path not in allowed
        for name, node in calls(path)
        if name in enders
    ]
    assert places == []


def test_no_exception_is_swallowed():
    places = []
    for path in SOURCES:
        for node in ast.walk(TREES[path]):
            if not isinstance(node, ast.ExceptHandler):
                continue
            caught = ast.unparse(node.type) if node.type else ""
            is_silent = all(isinstance(item, (ast.Pass, ast.Continue)) for item in node.body)
            if not caught or (caught in ("Exception", "BaseException") and is_silent):
                places.append(f"{named(path)}:{node.lineno}")
    assert places == []


def test_nothing_that_yaml_can_name_takes_unnamed_parameters():
    for registry in REGISTRIES.values():
        for name in registry:
            kinds = {item.kind for item in parameters_of(registry[name]).values()}
            assert not {kind.name for kind in kinds} & {"VAR_POSITIONAL", "VAR_KEYWORD"}, name


def test_every_file_begins_with_its_licence():
    line = "# SPDX-License-Identifier: Apache-2.0"
    without = [named(path) for path in EVERY_FILE if path.read_text("utf-8").partition("\n")[0] != line]
    assert without == []


def test_a_tool_imports_only_the_upper_layers():
    layers = (
        "ppcls.engine",
        "ppcls.config",
        "ppcls.utils",
        "ppcls.deploy",
        "ppcls.serve",
        *(f"ppcls.{part}" for part in PARTS),
    )
    allowed = (*layers, "ppcls.__version__")
    assert importing("tools", lambda name: begins_with(name, "ppcls") and not begins_with(name, *allowed)) == []
