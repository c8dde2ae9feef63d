# SPDX-License-Identifier: Apache-2.0
"""What is wrong in a configuration, collected while it is read, and what was probably meant."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ppcls.config.node import Node
from ppcls.config.registry import Call

INVALID = object()
"""Stands for a value that could not be read; at least one error says why."""


@dataclass
class Problems:
    """Everything found wrong in one configuration, in the order of reading.

    Attributes:
        errors: what must be mended before anything is built.
        warnings: what has no effect here.
        parts: every call that was read without an error, with its dotted path, the inner ones first.
        elsewhere: for an unknown key and the block it stands in, advice where it belongs, if anywhere.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    parts: list[tuple[str, Call]] = field(default_factory=list)
    elsewhere: Callable[[str, str], str | None] = lambda key, path: None

    def error(self, node: Node, path: str, text: str) -> Any:
        """Note an error and return the mark of a value that could not be read."""
        self.errors.append(f"{node.where}: {path}: {text}" if path else f"{node.where}: {text}")
        return INVALID

    def adopt(self, attempt: Problems) -> None:
        """Take over what an attempt found."""
        self.errors.extend(attempt.errors)
        self.warnings.extend(attempt.warnings)
        self.parts.extend(attempt.parts)


def suggestion(word: str, names: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the nearest of the names, or the whole list when none is near."""
    names = list(names)
    near = nearest(word, names)
    if near:
        return f"; did you mean '{near}'?"
    return f"; it may be {', '.join(names)}" if 0 < len(names) <= 12 else ""


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name most like the word, if one is like it at all; a single slip of the finger comes first."""
    by_lower = {name.lower(): name for name in names}
    word = word.lower()
    slips = [name for name in by_lower if is_slip(word, name)]
    match = difflib.get_close_matches(word, slips or by_lower, n=1, cutoff=0.0 if slips else 0.5)
    return by_lower[match[0]] if match else None


def is_slip(word: str, name: str) -> bool:
    """Whether one letter is missing, too many or wrong, or two neighbours are swapped."""
    start = len(os.path.commonprefix([word, name]))
    word, name = word[start:], name[start:]
    end = len(os.path.commonprefix([word[::-1], name[::-1]]))
    word, name = word[: len(word) - end], name[: len(name) - end]
    return max(len(word), len(name)) <= 1 or (len(word) == 2 and word == name[::-1])
