# SPDX-License-Identifier: Apache-2.0
"""What a YAML file may say: architectures, data sets, transforms, ... with their parameters, and the fixed sections."""

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from inspect import getdoc
from pathlib import Path
from typing import Any, get_args

if not __package__:  # run from a checkout, not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ppcls.utils.cli import run  # noqa: E402

SECTIONS = "sections"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="examples:\n  python tools/list.py\n  python tools/list.py architectures\n  python tools/list.py crop\n"
        "  python tools/list.py sections",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "filter",
        nargs="?",
        default="",
        help="a kind (architectures, transforms, losses, ...), part of a name, or 'sections' for Global, AMP, ...",
    )
    return parser.parse_args()


def main() -> None:
    """List what the command line asks for."""
    wanted = arguments().filter
    # These register all that a file may name; they are slow to import, so --help is answered first.
    from ppcls import arch, data, engine, loss, metric, optimizer  # noqa: F401
    from ppcls.config.problem import nearest
    from ppcls.config.registry import REGISTRIES
    from ppcls.utils.errors import ConfigError

    if wanted.lower() in (SECTIONS, "section"):
        print("\n".join(sections()))
        return
    kinds = {registry.plural: registry for registry in REGISTRIES.values()}
    found = False
    for kind, registry in kinds.items():
        whole = not wanted or wanted.lower() in (kind, registry.noun)
        names = [name for name in registry if whole or wanted.lower() in name.lower()]
        if names:
            found = True
            print(f"{kind} ({len(names)} of {len(registry)})")
            for name in names:
                print("\n".join(entry(registry[name])))
    if not found:
        every = [*kinds, SECTIONS, *(name for registry in kinds.values() for name in registry)]
        near = nearest(wanted, every)
        advice = f"did you mean '{near}'?" if near else f"the kinds are {', '.join([*kinds, SECTIONS])}"
        raise ConfigError(f"nothing is called '{wanted}'; {advice}")


def entry(target: Callable[..., Any]) -> Iterator[str]:
    """The lines for one callable: its parameters with their defaults, and what it is."""
    from ppcls.config.annotation import parameters_of
    from ppcls.config.registry import is_each_key

    given = runtime()
    texts = [
        # The keys are names of operations or the like, not this one.
        (f"<{name}>" if is_each_key(item.annotation) else name)
        + ("" if item.default is item.empty else f"={shown(item.default)}")
        for name, item in parameters_of(target).items()
        if name not in given.get(target, ())
    ]
    summary = first_sentence(getdoc(target) or "")
    yield f"  {target.__name__}({', '.join(texts)})"
    if summary:
        yield f"      {summary}"


def first_sentence(text: str) -> str:
    """The beginning of a docstring up to its first full stop or blank line, in one line."""
    paragraph = " ".join(text.strip().partition("\n\n")[0].split())
    sentence, stop, _ = paragraph.partition(". ")
    return sentence + stop.strip()


def sections() -> Iterator[str]:
    """The lines for the fixed sections: each key with its default and its line of the documentation."""
    from ppcls.config.annotation import parameters_of
    from ppcls.config.registry import block_of
    from ppcls.config.schema import RunConfig

    for section, field in parameters_of(RunConfig).items():
        for settings in (hint for hint in (field.annotation, *get_args(field.annotation)) if is_dataclass(hint)):
            yield f"{section}{'' if field.default is field.empty else ' (may be left out)'}"
            yield f"    {(getdoc(settings) or '').partition(chr(10))[0]}"
            help_texts = described(getdoc(settings) or "")
            for key, item in parameters_of(settings).items():
                if block_of(item.annotation, inline=True):
                    yield "  name"
                    yield f"      {help_texts[key]}"
                    continue
                default = "" if item.default is item.empty else f": {shown(item.default)}"
                yield f"  {key}{default}"
                if key in help_texts:
                    yield f"      {help_texts[key]}"


def described(text: str) -> dict[str, str]:
    """The texts of a docstring's ``Args``, by parameter."""
    inside = text.partition("Args:\n")[2].partition("\n\n")[0]
    items = re.findall(r"^    (\w+): (.*(?:\n {8,}.*)*)", inside, re.MULTILINE)
    return {key: " ".join(value.split()) for key, value in items}


def runtime() -> dict[Callable[..., Any], tuple[str, ...]]:
    """The parameters that the framework supplies, by callable; a YAML file may not give them."""
    from ppcls.config.place import blocks

    return {target: block.runtime for block in blocks() for target in map(block.registry.__getitem__, block.registry)}


def shown(default: Any) -> str:
    """A default as YAML would write it."""
    if is_dataclass(default):
        return "..."
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]
    return repr(default)


if __name__ == "__main__":
    run(main)
