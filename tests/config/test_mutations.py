# SPDX-License-Identifier: Apache-2.0
"""A letter of a key lost, added, changed or swapped: every such file is refused, and the right key is suggested."""

import gc
import random
import re
import shutil
import string
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from ppcls import arch, loss, metric, optimizer  # noqa: F401
from ppcls.config import load_config
from ppcls.config.load import REPOSITORY
from ppcls.config.node import BASE, REPLACE, load_tree
from ppcls.config.registry import REGISTRIES
from ppcls.config.resolved import resolved_text
from ppcls.data import all as data  # noqa: F401
from ppcls.utils.errors import ConfigError

HERE = Path(__file__).parent
CONFIGS = REPOSITORY / "configs"
LETTERS = string.ascii_lowercase + "_"
MUTANTS = 300
ALL_MUTANTS = 5000


class Key(NamedTuple):
    """One key of a YAML file: where it is written, and the path of its block in the file."""

    file: Path
    line: int
    column: int
    text: str
    block: tuple[str, ...]


class Mutant(NamedTuple):
    """What became of one mutated key."""

    key: Key
    text: str
    errors: list[str]
    seconds: float

    @property
    def suggestion_is_right(self):
        named = next((error for error in self.errors if f"'{self.text}'" in error), "")
        return re.findall(r"did you mean '([^']*)'", named)[:1] == [self.key.text]


def keys_of(path):
    """Every key of the file, those of the files it starts from included, except what another file replaces."""
    live, files = set(), set()
    pending = [load_tree(path)]
    while pending:
        node = pending.pop()
        file, _, line = node.where.rpartition(":")
        live.add((Path(file).resolve(), int(line)))
        children = node.value.values() if isinstance(node.value, dict) else node.value
        pending.extend(children if isinstance(node.value, (dict, list)) else ())
    files = {file for file, _ in live} | {path.resolve()}
    found = [key for file in sorted(files) for key in _keys_of_text(file, yaml.compose(file.read_text("utf-8")), ())]
    return [key for key in found if (key.file, key.line) in live or key.text == BASE]


def _keys_of_text(file, node, block):
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value != REPLACE:
                yield Key(file, key.start_mark.line + 1, key.start_mark.column, key.value, block)
            yield from _keys_of_text(file, value, (*block, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _keys_of_text(file, item, (*block, str(index)))


def mutated(word, draw):
    """The word after one slip: delete, replace, transpose or insert a letter; never the word itself."""
    place = draw.randrange(len(word))
    letter = draw.choice(LETTERS)
    slip = draw.choice(["delete", "replace", "transpose", "insert"])
    changed = {
        "delete": word[:place] + word[place + 1 :],
        "replace": word[:place] + letter + word[place + 1 :],
        "transpose": word[:place] + word[place : place + 2][::-1] + word[place + 2 :],
        "insert": word[:place] + letter + word[place:],
    }[slip]
    return mutated(word, draw) if changed in ("", word) else changed


def is_legal(text, block, resolved):
    """Whether the text is a key that this very block may have."""
    if block and block[-1].isdecimal():
        return any(text in registry for registry in REGISTRIES.values())
    for key in block:
        resolved = resolved[int(key)] if isinstance(resolved, list) else resolved.get(key) or {}
    return text in resolved


def mutants_of(paths, tree, folder, count, seed=0):
    """Mutate ``count`` keys drawn from the files; ``tree`` is the folder they live in, copied to ``folder``."""
    draw = random.Random(seed)
    copy = Path(shutil.copytree(tree, folder / "copy")).resolve()
    files = [copy / path.relative_to(tree) for path in paths]
    keys = {file: keys_of(file) for file in files}
    resolved = {file: yaml.safe_load(resolved_text(load_config(file).call)) for file in files}
    mutants = []
    while len(mutants) < count:
        file = draw.choice(files)
        key = draw.choice(keys[file])
        text = mutated(key.text, draw)
        if is_legal(text, key.block, resolved[file]):
            continue
        mutants.append(_try(file, key, text))
    return mutants


def _try(file, key, text):
    original = key.file.read_text("utf-8")
    lines = original.splitlines(keepends=True)
    line = lines[key.line - 1]
    assert line[key.column :].startswith(key.text)
    lines[key.line - 1] = line[: key.column] + text + line[key.column + len(key.text) :]
    key.file.write_text("".join(lines), "utf-8")
    gc.disable()  # collecting the garbage of all tests so far is not the loader's time
    started = time.process_time()
    try:
        load_config(file)
        errors = []
    except ConfigError as error:
        errors = error.problems
    finally:
        seconds = time.process_time() - started
        gc.enable()
        key.file.write_text(original, "utf-8")
    return Mutant(key, text, errors, seconds)


def check(mutants, counted):
    counted(len(mutants))
    accepted = [mutant for mutant in mutants if not mutant.errors]
    wrong = [mutant for mutant in mutants if mutant.errors and not mutant.suggestion_is_right]
    slowest = max(mutant.seconds for mutant in mutants)
    share = 1 - len(wrong) / len(mutants)
    print(
        f"\n{len(mutants)} mutants, {len(mutants) - len(accepted)} rejected, "
        f"suggestion right in {share:.1%}, slowest {slowest * 1000:.0f} ms"
    )
    for mutant in wrong:
        print(f"{mutant.key.text} -> {mutant.text}: {mutant.errors}")
    assert not accepted
    assert share >= 0.95
    assert slowest < 1


@pytest.mark.promise("F40")
def test_every_mutated_key_of_a_paddleclas_file_is_refused_and_the_right_key_suggested(tmp_path, times, counted):
    tree = tmp_path / "tree"
    tree.mkdir()
    shutil.copy(HERE / "densenet121_paddleclas.yaml", tree)
    check(mutants_of([tree / "densenet121_paddleclas.yaml"], tree, tmp_path, times(MUTANTS, ALL_MUTANTS)), counted)


@pytest.mark.promise("F40")
def test_every_mutated_key_of_the_shipped_files_is_refused_and_the_right_key_suggested(tmp_path, times, counted):
    paths = [path for path in sorted(CONFIGS.glob("**/*.yaml")) if "_base_" not in path.parts]
    if not paths:
        pytest.skip("no configs/ here")
    check(mutants_of(paths, CONFIGS, tmp_path, times(MUTANTS, ALL_MUTANTS), seed=1), counted)


@pytest.mark.promise("F40")
def test_a_mutated_key_of_a_base_file_is_refused(tmp_path, times, counted):
    tree = tmp_path / "tree"
    tree.mkdir()
    shutil.copy(HERE / "densenet121_paddleclas.yaml", tree / "base.yaml")
    (tree / "child.yaml").write_text("_base_: base.yaml\nArch:\n  class_num: 10\n")
    check(mutants_of([tree / "child.yaml"], tree, tmp_path, times(60, 600), seed=2), counted)
