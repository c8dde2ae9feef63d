# SPDX-License-Identifier: Apache-2.0
"""timm's one-line language for augmentation policies, such as ``rand-m9-mstd0.5-inc1``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, NamedTuple, Union

TOP_LEVEL = 10.0
"""Where levels end, unless ``mmax`` says otherwise."""

UNIFORM_STD = 100.0
"""Above this standard deviation, a level is drawn uniformly between 0 and ``m``."""


POLICIES = ("original", "originalr", "v0", "v0r")
"""The searched policies; with ``r`` at the end, posterize gets stronger with the level."""


@dataclass(frozen=True)
class RandConfig:
    """``rand``: some operations at one level.

    Args:
        level: how strong the operations are (``m``).
        num_layers: operations for each image (``n``).
        weight_set: 0 to draw some operations more often than others (``w``); None for all alike.
        probability: of an operation that is drawn to be done (``p``).
        level_std: standard deviation of the level (``mstd``).
        top_level: the largest level (``mmax``).
        is_increasing: whether all operations get stronger with the level (``inc``).
    """

    level: float = TOP_LEVEL
    num_layers: int = 2
    weight_set: int | None = None
    probability: float = 0.5
    level_std: float = 0.0
    top_level: float = TOP_LEVEL
    is_increasing: bool = False


@dataclass(frozen=True)
class MixConfig:
    """``augmix``: a blend of several chains of operations.

    Args:
        level: how strong the operations are (``m``).
        width: number of chains (``w``).
        depth: operations in a chain (``d``); 0 draws 1 to 3 for each.
        concentration: of the chains' weights (``a``).
        is_stepwise: whether the chains are blended in one after the other (``b``), which is faster and rounds more.
        level_std: standard deviation of the level (``mstd``).
        top_level: the largest level (``mmax``).
    """

    level: float = 3.0
    width: int = 3
    depth: int = 0
    concentration: float = 1.0
    is_stepwise: bool = False
    level_std: float = 0.0
    top_level: float = TOP_LEVEL


@dataclass(frozen=True)
class PolicyConfig:
    """One of the searched policies, by its name.

    Args:
        name: one of ``POLICIES``.
        level_std: standard deviation of the levels (``mstd``).
        top_level: the largest level (``mmax``).
    """

    name: str
    level_std: float = 0.0
    top_level: float = TOP_LEVEL


TimmConfig = Union[RandConfig, MixConfig, PolicyConfig]


class _Key(NamedTuple):
    field: str
    kind: type
    low: float = 0.0
    high: float = math.inf

    def read(self, text: str) -> Any:
        """The value of the digits behind a key; ValueError says what they must be."""
        value = float(text)
        if not self.low <= value <= self.high or (self.kind is not float and not value.is_integer()):
            number = "a number" if self.kind is float else "a whole number"
            raise ValueError(f"takes {number} within {self.low:g}..{self.high:g}")
        return self.kind(value)


_ANY = {"mstd": _Key("level_std", float), "mmax": _Key("top_level", float)}
_RAND = {
    "m": _Key("level", float),
    "n": _Key("num_layers", int, 1),
    "w": _Key("weight_set", int, 0, 0),
    "p": _Key("probability", float, 0, 1),
    "inc": _Key("is_increasing", bool, 0, 1),
    **_ANY,
}
_MIX = {
    "m": _Key("level", float),
    "w": _Key("width", int, 1),
    "d": _Key("depth", int, 1),
    "a": _Key("concentration", float, 0.01),
    "b": _Key("is_stepwise", bool, 0, 1),
    **_ANY,
}
_SECTION = re.compile(r"([a-z]+)(\d+(?:\.\d+)?|inf)")


def parse_timm_config(text: str) -> TimmConfig:
    """Return what a line means: a kind and, behind dashes in any order, letters that each have a number.

    Args:
        text: such as ``rand-m9-mstd0.5-inc1``, ``augmix-m5-w4-d2`` or ``original-mstd0.5``.

    Raises:
        ValueError: an unknown kind or key, a key given twice, or a number out of range.
    """
    kind, *sections = text.split("-")
    # PaddleClas: a searched policy is only accepted behind "auto", under which no policy is then found.
    keys = {"rand": _RAND, "augmix": _MIX, **dict.fromkeys(POLICIES, _ANY)}.get(kind)
    if keys is None:
        raise ValueError(f"config_str must start with rand, augmix, {', '.join(POLICIES)}; got {text!r}")
    values: dict[str, Any] = {}
    for section in sections:
        match = _SECTION.fullmatch(section)
        # PaddleClas: a section without digits is passed over.
        if not match or match[1] not in keys:
            raise ValueError(
                f"config_str {text!r}: {section!r} means nothing; {kind} takes {', '.join(keys)}, each with a number"
            )
        key = keys[match[1]]
        if key.field in values:
            raise ValueError(f"config_str {text!r}: {match[1]} is given twice")
        try:
            # PaddleClas: inc0 and b0 mean the same as inc1 and b1, and m7.5 is refused.
            values[key.field] = key.read(match[2])
        except ValueError as error:
            raise ValueError(f"config_str {text!r}: {match[1]} {error}; got {match[2]}") from error
    config = _config(kind, values)
    if not isinstance(config, PolicyConfig) and config.level > config.top_level:
        # PaddleClas: m12 is m10.
        raise ValueError(
            f"config_str {text!r}: levels end at {config.top_level:g}, below m{config.level:g}; "
            f"write m{config.top_level:g}, or add mmax{config.level:g}"
        )
    return config


def _config(kind: str, values: dict[str, Any]) -> TimmConfig:
    if kind == "rand":
        return RandConfig(**values)
    return MixConfig(**values) if kind == "augmix" else PolicyConfig(kind, **values)
