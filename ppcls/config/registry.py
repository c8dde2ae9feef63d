# SPDX-License-Identifier: Apache-2.0
"""Registries: the callables that a YAML file may name, and `Call`, one of them with its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar, get_args, get_origin

T = TypeVar("T", bound=Callable[..., Any])


class Registry:
    """Callables of one kind, by the name that YAML uses for them.

    Args:
        noun: what one entry is called in messages, such as "architecture".
    """

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self.one = f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
        self.plural = f"{noun}{'es' if noun.endswith('s') else 's'}"
        self._entries: dict[str, Callable[..., Any]] = {}

    def register(self, target: T) -> T:
        """Add a class or function under its ``__name__`` and return it unchanged (usable as a decorator).

        Raises:
            ValueError: the name is taken, or the callable has ``*args`` or ``**kwargs``, in which
                a misspelt parameter could hide.
        """
        name = target.__name__
        if name in self._entries:
            raise ValueError(f"the {self.noun} '{name}' is already registered by {self._entries[name].__module__}")
        for parameter in inspect.signature(target).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise ValueError(
                    f"the {self.noun} '{name}' takes *{parameter.name}; name its parameters, so that a typo cannot hide"
                )
        self._entries[name] = target
        return target

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> Callable[..., Any]:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)


@dataclass(frozen=True)
class Within:
    """A number's allowed range, both ends included; written as ``Annotated[int, Within(1)]``."""

    low: float | None = None
    high: float | None = None

    def __contains__(self, value: float) -> bool:
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        if self.high is None:
            return f"at least {self.low}"
        if self.low is None:
            return f"at most {self.high}"
        return f"{self.low} to {self.high}"


Count = Annotated[int, Within(1)]
"""A whole number from 1 on."""

Share = Annotated[float, Within(0, 1)]
"""A part of a whole."""


@dataclass(frozen=True)
class Block:
    """How a parameter's YAML block is read; written as ``Annotated[Callable, Block(REGISTRY)]``.

    With ``Callable`` the block is built when its owner is built; with ``Call`` the owner gets it
    unbuilt, to add what only the run knows. A plain registry as the mark means ``Block(registry)``.

    Args:
        registry: where the block's ``name`` is looked up.
        runtime: parameters that the framework supplies; writing them in YAML is an error.
        inline: the named callable's keys stand in the owner's own block, beside the owner's.
        default: the name meant when the block has none.
    """

    registry: Registry
    runtime: tuple[str, ...] = ()
    inline: bool = False
    default: str | None = None


@dataclass(frozen=True)
class EachKey:
    """The owner's block is the parameter's list, an item for each key; ``Annotated[list[Item], EachKey()]``."""


def is_each_key(hint: Any) -> bool:
    """Whether a hint carries `EachKey`."""
    return get_origin(hint) is Annotated and isinstance(get_args(hint)[1], EachKey)


def block_of(hint: Any, inline: bool | None = None) -> Block | None:
    """The `Block` that a hint carries, or ``None``; a plain registry is a block with nothing special."""
    mark = get_args(hint)[1] if get_origin(hint) is Annotated else None
    if isinstance(mark, Registry):
        mark = Block(mark)
    return mark if isinstance(mark, Block) and (inline is None or mark.inline == inline) else None


@dataclass(frozen=True)
class Call:
    """A callable and the arguments that a YAML file gives it; calling it builds the part.

    Attributes:
        target: what is called.
        kwargs: its arguments; nested calls among them are built first, unless ``deferred``.
        where: the ``file:line`` of the block.
        origins: the ``file:line`` of each argument.
        deferred: the owner builds this call itself, with run-time arguments.
        inline: the argument whose keys share this call's own block, if there is one.
        runtime: names of arguments that come at build time.
    """

    target: Callable[..., Any]
    kwargs: dict[str, Any] = field(default_factory=dict)
    where: str = ""
    origins: dict[str, str] = field(default_factory=dict)
    deferred: bool = False
    inline: str | None = None
    runtime: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name that YAML uses for the target."""
        return self.target.__name__

    def __call__(self, **runtime: Any) -> Any:
        """Build the part, adding the arguments that only the run knows."""
        return self.target(**{key: _built(value) for key, value in self.kwargs.items()}, **runtime)


def _built(value: Any) -> Any:
    if isinstance(value, Call):
        return value if value.deferred else value()
    if isinstance(value, list):
        return [_built(item) for item in value]
    return value


ARCHS = Registry("architecture")
DATASETS = Registry("dataset")
SAMPLERS = Registry("sampler")
TRANSFORMS = Registry("transform")
BATCH_OPS = Registry("batch operation")
LOSSES = Registry("loss")
METRICS = Registry("metric")
OPTIMIZERS = Registry("optimizer")
SCHEDULES = Registry("schedule")
POSTPROCESSES = Registry("postprocess")
TRAIN_STEPS = Registry("train step")
EVALUATORS = Registry("evaluator")

REGISTRIES = {
    "ARCHS": ARCHS,
    "DATASETS": DATASETS,
    "SAMPLERS": SAMPLERS,
    "TRANSFORMS": TRANSFORMS,
    "BATCH_OPS": BATCH_OPS,
    "LOSSES": LOSSES,
    "METRICS": METRICS,
    "OPTIMIZERS": OPTIMIZERS,
    "SCHEDULES": SCHEDULES,
    "POSTPROCESSES": POSTPROCESSES,
    "TRAIN_STEPS": TRAIN_STEPS,
    "EVALUATORS": EVALUATORS,
}
