# SPDX-License-Identifier: Apache-2.0
"""YAML text to a tree in which every value knows the ``file:line`` it comes from."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ppcls.utils.download import masked
from ppcls.utils.errors import ConfigError

BASE = "_base_"
REPLACE = "_replace_"
MAX_NODES = 100_000
MAX_BYTES = 1 << 20
MAX_FILES = 100  # with those that `_base_` names, each as often as it is named
MAX_DEPTH = 50
MAX_DIGITS = 100  # a number of a million digits takes minutes to convert
TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "timestamp")}


@dataclass
class Node:
    """One YAML value: a scalar, a list of nodes or a mapping from keys to nodes.

    Attributes:
        value: ``None``, ``bool``, ``int``, ``float``, ``str``, ``list[Node]`` or ``dict[str, Node]``.
        where: the ``file:line`` of the value's key, or the text of the ``-o`` option that set it.
    """

    value: Any
    where: str

    def plain(self) -> Any:
        """The value as ordinary Python data, without its origin."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


def load_tree(path: str | os.PathLike, overrides: Iterable[str] = ()) -> Node:
    """Read a YAML file, the files it starts from, and the ``key.path=value`` overrides, later ones winning.

    Raises:
        ConfigError: the file is missing or not valid YAML, a key stands twice, a base file is part
            of a circle, or an override's path leads nowhere.
    """
    tree = _read(Path(path), [])
    problems: list[str] = []
    for text in overrides:
        try:
            override(tree, text)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return tree


def override(tree: Node, text: str) -> None:
    """Replace one value of the tree in place; ``text`` is ``a.b.0.c=value`` and the value is read as YAML.

    Raises:
        ConfigError: no ``=``, a value that is not YAML, or a path through something that has no such place.
    """
    where = f"-o {masked(text)}"
    path, equals, value_text = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"{where}: expected key.path=value, such as -o Global.epochs=3")
    value = _parse(value_text, where)
    if _has_comment(value_text, value, where):
        raise ConfigError(f"{where}: what follows ' #' would be left out, as YAML's comment; put the value in quotes")
    parent = tree
    for depth, key in enumerate(keys):
        here = ".".join(keys[:depth]) or "the top of the file"
        is_last = depth == len(keys) - 1
        if parent.value is None:
            parent.value = {}
        if isinstance(parent.value, list):
            parent = _set_item(parent.value, key, value if is_last else None, here, where)
        elif isinstance(parent.value, dict):
            if is_last:
                parent.value[key] = value
            parent = parent.value.setdefault(key, Node({}, where))
        else:
            raise ConfigError(f"{where}: {here} is the single value {parent.value!r} and has no '{key}' inside")


def _has_comment(text: str, value: Node, where: str) -> bool:
    if "#" not in text:
        return False
    try:
        other = _parse(text.replace("#", "_"), where)
    except ConfigError:
        return True
    return repr(value.plain()).replace("#", "_") != repr(other.plain())


def _set_item(items: list[Node], key: str, value: Node | None, here: str, where: str) -> Node:
    if not key.isdecimal() or int(key) >= len(items):
        names = ", ".join(f"{index}: {_label(item)}" for index, item in enumerate(items))
        raise ConfigError(
            f"{where}: {here} is a list of {len(items)} and has no place '{key}'; it has {names or 'none'}"
        )
    if value is not None:
        items[int(key)] = value
    return items[int(key)]


def _label(item: Node) -> str:
    return next(iter(item.value), "{}") if isinstance(item.value, dict) else str(item.value)


def _read(path: Path, sizes: list[int], chain: tuple[Path, ...] = (), asked_by: str = "") -> Node:
    shown = f"{asked_by}{_shown(path)}"
    text = _text_of(path, shown)
    if path.resolve() in chain:
        raise ConfigError(f"{shown} leads back to itself through {', '.join(map(_shown, chain))}")
    sizes.append(len(text))
    if len(sizes) > MAX_FILES or sum(sizes) > MAX_BYTES:  # files that name others ten times, and those others, ...
        raise ConfigError(f"{shown}: more than {MAX_FILES} files or {MAX_BYTES} bytes through {BASE}")
    tree = _parse(text, _shown(path), is_file=True)
    if tree.value is None:
        tree.value = {}
    if not isinstance(tree.value, dict):
        raise ConfigError(f"{shown}:1: expected sections such as 'Global:' and 'Arch:', found {_kind(tree.value)}")
    bases = tree.value.pop(BASE, Node([], ""))
    merged = Node({}, tree.where)
    for name in bases.value if isinstance(bases.value, list) else [bases]:
        if not isinstance(name.value, str):
            raise ConfigError(f"{bases.where}: {BASE}: expected a path or a list of paths, found {_kind(name.value)}")
        base = _read(path.parent / name.value, sizes, (*chain, path.resolve()), f"{name.where}: {BASE}: ")
        merged = _merge(merged, base)
    return _merge(merged, tree)


def _text_of(path: Path, shown: str) -> str:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{shown}: this is not a file")
        if status.st_size > MAX_BYTES:
            raise ConfigError(f"{shown}: larger than {MAX_BYTES} bytes; is this a configuration file?")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{shown}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{shown}: not UTF-8 text (byte {error.start}); is this a configuration file?") from error
    except ValueError as error:
        raise ConfigError(f"{shown!r}: not a path ({error})") from error


def _merge(base: Node, later: Node) -> Node:
    """Mappings merge key by key, everything else replaces; ``_replace_: true`` in a mapping makes it replace too."""
    if not isinstance(later.value, dict):
        return later
    if (mark := later.value.pop(REPLACE, None)) and mark.value is not True:
        raise ConfigError(
            f"{mark.where}: {REPLACE} may only be true (this mapping then replaces the one it merges with)"
        )
    if mark or not isinstance(base.value, dict):
        return Node({key: _merge(Node(None, ""), node) for key, node in later.value.items()}, later.where)
    merged = dict(base.value)
    for key, node in later.value.items():
        merged[key] = _merge(merged[key], node) if key in merged else _merge(Node(None, ""), node)
    return Node(merged, later.where)


def _parse(text: str, source: str, is_file: bool = False) -> Node:
    """YAML text to nodes; ``where`` is ``source:line`` in a file and ``source`` in an option."""
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            converter = _Converter(loader, source, is_file)
            return converter.node(root, f"{source}:1" if is_file else source) if root else Node(None, source)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{source}:{mark.line + 1}" if is_file and mark else source
        problem = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        raise ConfigError(f"{place}: not valid YAML: {problem}") from error
    except yaml.reader.ReaderError as error:
        place = f"{source}:{text.count(chr(10), 0, error.position) + 1}" if is_file else source
        raise ConfigError(f"{place}: not valid YAML: the character #x{error.character:04x} is not allowed") from error
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply to be a configuration") from None


class _Loader(yaml.SafeLoader):
    """Stops at too many values before they fill the memory; a megabyte of them takes 300."""

    num_values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Return the next value."""
        self.num_values += 1
        if self.num_values > MAX_NODES:
            problem = f"more than {MAX_NODES} values; is this a configuration file?"
            raise yaml.composer.ComposerError(None, None, problem, self.peek_event().start_mark)
        return super().compose_node(parent, index)


class _Converter:
    """Turns the nodes of one YAML document into `Node`, with the types that `yaml.safe_load` gives."""

    def __init__(self, loader: yaml.SafeLoader, source: str, is_file: bool) -> None:
        self.loader = loader
        self.source = source
        self.is_file = is_file
        self.count = 0

    def where(self, node: yaml.Node) -> str:
        return f"{self.source}:{node.start_mark.line + 1}" if self.is_file else self.source

    def node(self, node: yaml.Node, where: str, depth: int = 0) -> Node:
        self.count += 1
        if depth > MAX_DEPTH:  # also what ends an alias that contains itself
            raise ConfigError(f"{self.where(node)}: nested too deeply to be a configuration")
        if self.count > MAX_NODES:  # also what ends aliases that multiply
            raise ConfigError(f"{self.where(node)}: more than {MAX_NODES} values; is this a configuration file?")
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return Node([self.node(item, self.where(item), depth + 1) for item in node.value], where)
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return Node(self.mapping(node, depth + 1), where)
        return Node(self.scalar(node), where)

    def scalar(self, node: yaml.Node) -> Any:
        here = self.where(node)
        if not isinstance(node, yaml.ScalarNode) or node.tag not in TAGS:
            raise ConfigError(f"{here}: not valid YAML: the tag '{node.tag}' is not allowed")
        if not node.tag.endswith(":str") and len(node.value) > MAX_DIGITS:
            raise ConfigError(f"{here}: not valid YAML: a value of {len(node.value)} digits")
        try:
            return self.loader.construct_object(node)
        except (ValueError, KeyError, OverflowError) as error:
            raise ConfigError(f"{here}: not valid YAML: {node.value!r} ({error})") from error

    def mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        for key_node, value_node in node.value:
            here = self.where(key_node)
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise ConfigError(f"{here}: '<<' is not supported; put the shared part in a file and name it in {BASE}")
            if not isinstance(key_node, yaml.ScalarNode) or self.scalar(key_node) is None:
                raise ConfigError(f"{here}: a key must be a word, found {_kind_of(key_node)}")
            key = key_node.value  # as written: YAML 1.1 would make True of the word "on"
            if key in entries:
                raise ConfigError(f"{here}: '{key}' stands here and at {entries[key].where}; remove one of them")
            entries[key] = self.node(value_node, here, depth)
        return entries


def _kind_of(node: Any) -> str:
    return {"mapping": "a mapping", "sequence": "a list"}.get(node.id, "nothing")


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: f"the text {value!r}", type(None): "nothing"}
    return names.get(type(value), repr(value))


def _shown(path: Path) -> str:
    """The path as a person would type it: relative when it lies below the current directory."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
