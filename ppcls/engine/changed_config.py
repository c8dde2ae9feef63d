# SPDX-License-Identifier: Apache-2.0
"""A run goes on with a changed configuration: what may change, what is told, what is refused. All in one table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

from ppcls.config.registry import Call
from ppcls.config.resolved import resolved_tree

MAX_SHOWN = 100
"""Characters of a value in a message."""
MAX_WHOLE = 2**53
"""Up to here whole numbers are the same as floats."""


class Verdict(Enum):
    """What becomes of a run that goes on with another value of a key."""

    FREE = "free: neither kept nor compared"
    TOLD = "goes on, told"
    NEW_BEST = "goes on, told; the best figure begins anew"
    SAME_RATE = "goes on, told, where the learning rate stays or Optimizer.lr was changed too; else refused"
    BETWEEN_EPOCHS = "goes on, told, from the end of an epoch; refused within one"
    REFUSED = "refused"


@dataclass(frozen=True)
class Rule:
    """A row of the table.

    Attributes:
        keys: paths of keys; ``*`` stands for any characters of one step, a last ``**`` for the key and all below it.
        verdict: what becomes of the run.
        reason: why, or what it means; for a refusal also what to do.
    """

    keys: tuple[str, ...]
    verdict: Verdict
    reason: str

    def holds_for(self, path: str) -> bool:
        """Whether it is about this key."""
        return any(_pattern(key).fullmatch(path) for key in self.keys)


def _rule(keys: str, verdict: Verdict, reason: str) -> Rule:
    return Rule(tuple(keys.split()), verdict, reason)


_FROM_WEIGHTS = "start from its weights with Global.pretrained_model"

TABLE = (
    _rule(
        "Global.output_dir Global.output_url Global.cache_dir Global.checkpoints",
        Verdict.FREE,
        "where files are",
    ),
    _rule(
        "Global.save_interval Global.save_step_interval Global.keep_checkpoint_max Global.save_on_all_ranks",
        Verdict.FREE,
        "when something is saved, and where",
    ),
    _rule(
        "Global.eval_during_train Global.eval_interval Global.start_eval_epoch",
        Verdict.FREE,
        "when something is evaluated",
    ),
    _rule(
        "Global.print_batch_step Global.print_mem_info Global.use_visualdl Global.log_ranks",
        Verdict.FREE,
        "what is shown",
    ),
    _rule(
        "Global.on_non_finite Global.max_non_finite Global.on_save_error Global.stall_timeout "
        "Global.on_out_of_memory DataLoader.*.max_bad_fraction",
        Verdict.FREE,
        "what happens when something goes wrong",
    ),
    _rule(
        "Global.image_shape Global.save_inference_dir Global.export_onnx Global.export_for Global.fold_preprocess "
        "Global.allow_mismatch Global.allow_int8_loss Global.bundle Global.runtime Arch.infer_add_softmax Infer.**",
        Verdict.FREE,
        "for deployment",
    ),
    _rule(
        "DataLoader.*.loader.** DataLoader.Eval.sampler.**",
        Verdict.FREE,
        "how images are read; the result is the same",
    ),
    _rule(
        "Global.pretrained_model Arch.pretrained Arch.use_ssld Optimizer.lr.last_epoch",
        Verdict.TOLD,
        "without effect, as what it gives comes from the checkpoint",
    ),
    _rule(
        "Global.device AMP.** Arch.use_sync_bn Global.micro_batch_size",
        Verdict.TOLD,
        "numbers are rounded otherwise from here on, so the run is not the same to the last bit any more",
    ),
    _rule(
        "Global.epochs",
        Verdict.SAME_RATE,
        "the schedule stretches over all epochs, so the run so far would not be the beginning of this one; keep the "
        "number, or say how the rate goes on, such as -o 'Optimizer.lr={name: Constant, learning_rate: 0.001}' (or "
        f"T_max of Cosine), or {_FROM_WEIGHTS}",
    ),
    _rule(
        "Global.seed",
        Verdict.BETWEEN_EPOCHS,
        "another order of the images and other random numbers from here on; keep it, or continue from the end of an "
        "epoch",
    ),
    _rule(
        "Global.update_freq Global.iter_per_epoch DataLoader.Train.sampler.batch_size",
        Verdict.TOLD,
        "goes on where an epoch has as many updates as before and, within an epoch, an update as many images",
    ),
    _rule(
        "Arch.drop*",
        Verdict.TOLD,
        "from here on",
    ),
    _rule(
        "Arch.**",
        Verdict.REFUSED,
        f"the weights in the checkpoint are those of the model before; keep it, or {_FROM_WEIGHTS}",
    ),
    _rule(
        "Optimizer.name Optimizer.amsgrad Optimizer.scope",
        Verdict.REFUSED,
        f"the optimizer's state in the checkpoint does not fit; keep it, or {_FROM_WEIGHTS}",
    ),
    _rule(
        "Optimizer.lr.by_epoch",
        Verdict.REFUSED,
        f"the schedule would count epochs where it counted updates, or the other way; keep it, or {_FROM_WEIGHTS}",
    ),
    _rule(
        "Optimizer.lr.**",
        Verdict.TOLD,
        "the learning rate is that of the new schedule from here on, at the place that the run has come to",
    ),
    _rule(
        "EMA.**",
        Verdict.TOLD,
        "turned off, the average is left behind; turned on, the checkpoint has none and is refused",
    ),
    _rule(
        "DataLoader.*.dataset.image_root DataLoader.*.dataset.cls_label_path DataLoader.*.dataset.data_file "
        "DataLoader.*.dataset.delimiter DataLoader.*.dataset.sha256 DataLoader.*.dataset.download",
        Verdict.TOLD,
        "taken for the same images elsewhere; the names of the classes and the number of training images are compared",
    ),
    _rule(
        "DataLoader.*.on_bad_sample DataLoader.Train.dataset.transform_ops.** "
        "DataLoader.Train.dataset.batch_transform_ops.**",
        Verdict.TOLD,
        "from here on",
    ),
    _rule(
        "DataLoader.Train.**",
        Verdict.BETWEEN_EPOCHS,
        "the rest of the epoch would not be the images that are left of it; keep it, or continue from the end of an "
        "epoch",
    ),
    _rule(
        "DataLoader.Eval.** Metric.Eval.** Global.eval_mode",
        Verdict.NEW_BEST,
        "figures are not those of before",
    ),
    _rule(
        "Global.imports Global.train_mode Global.to_static Global.use_* Global.uniform_output_enabled Loss.** "
        "Metric.** Optimizer.**",
        Verdict.TOLD,
        "from here on",
    ),
    _rule(
        "**",
        Verdict.TOLD,
        "from here on",
    ),
)
"""The first row that is about a key decides. docs/reliability.md shows it; a test compares the two."""


def rule_for(path: str) -> Rule:
    """Return the row that decides about a key."""
    return next(rule for rule in TABLE if rule.holds_for(path))


@dataclass(frozen=True)
class ComparedConfig:
    """A configuration as far as it is compared: checkpoints keep ``tree``.

    Attributes:
        tree: every value that the table does not call free, defaults included.
        given: what the file says itself.
    """

    tree: Mapping[str, Any]
    given: Mapping[str, Any]

    @classmethod
    def of(cls, call: Call) -> ComparedConfig:
        """Of a checked configuration."""
        return cls(_without_free(resolved_tree(call)), resolved_tree(call, defaults=False))


@dataclass(frozen=True)
class Changes:
    """What has changed, a line for each key.

    Attributes:
        refused: why the run cannot go on.
        told: what it goes on with.
        is_measured_otherwise: the best figure so far cannot be compared with those to come.
    """

    refused: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    is_measured_otherwise: bool = False


def changes(
    before: Mapping[str, Any], now: ComparedConfig, is_whole: bool, is_inside_epoch: bool, keeps_rate: bool
) -> Changes:
    """Compare the configuration in a checkpoint with that of the run that goes on from it.

    Args:
        before: the ``tree`` in the checkpoint.
        now: the present one.
        is_whole: ``before`` has every key; of one that has not, only what it has is compared.
        is_inside_epoch: the checkpoint is of the middle of an epoch.
        keeps_rate: the next learning rate is what it would have been.
    """
    given = now.given if is_whole else {}
    found = list(_differences(_without_free(before), now.tree, given, is_whole))
    keeps_rate = keeps_rate or any(each.path.startswith("Optimizer.lr") for each in found)
    refused, told, is_measured_otherwise = [], [], False
    for each in found:
        rule = rule_for(each.path)
        is_refused = {
            Verdict.REFUSED: True,
            Verdict.SAME_RATE: not keeps_rate,
            Verdict.BETWEEN_EPOCHS: is_inside_epoch,
        }.get(rule.verdict, False)
        # A key that this version does not know any more is nobody's mistake.
        is_refused = is_refused and each.now is not _NOT_THERE
        if is_refused:
            refused.append(f"{each}: {rule.reason}")
        else:
            reason = rule.reason if rule.verdict is Verdict.TOLD else "from here on"
            told.append(f"{each} ({reason})")
            is_measured_otherwise |= rule.verdict is Verdict.NEW_BEST
    if is_measured_otherwise:
        told.append("the best figure so far was measured otherwise; best begins anew")
    return Changes(tuple(refused), tuple(told), is_measured_otherwise)


_NOT_THERE = object()


@dataclass(frozen=True)
class _Difference:
    path: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.path}: {_shown(self.before)} -> {_shown(self.now)}"


def _differences(before: Any, now: Any, given: Any, is_whole: bool, path: str = "") -> Iterator[_Difference]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        given = given if isinstance(given, Mapping) else {}
        # The parameters of another part are its own: that it is another says it all.
        is_other = "name" in before and "name" in now and before["name"] != now["name"]
        for key in [*now, *(key for key in before if key not in now)]:
            below = f"{path}.{key}" if path else key
            if key in before and key in now:
                yield from _differences(before[key], now[key], given.get(key), is_whole, below)
            elif key in before and not is_other:
                yield _Difference(below, before[key], _NOT_THERE)
            elif key in given and not is_other:
                # Otherwise it is a default that a newer version has brought.
                yield _Difference(below, _NOT_THERE, now[key])
    elif _names(before) and _names(before) == _names(now):
        for number, (one, other) in enumerate(zip(before, now)):
            below_given = given[number] if isinstance(given, list) and number < len(given) else None
            yield from _differences(one, other, below_given, is_whole, f"{path}.{number}")
    elif before != now:
        yield _Difference(path, before, now)


def _names(value: Any) -> list[str]:
    """The names of the parts in a list; none when it is another list, or another thing."""
    is_parts = isinstance(value, list) and all(isinstance(item, Mapping) and len(item) == 1 for item in value)
    return [next(iter(item)) for item in value] if is_parts else []


def _without_free(tree: Mapping[str, Any]) -> dict[str, Any]:
    return _pruned(tree, "")


def _pruned(tree: Mapping[str, Any], path: str) -> dict[str, Any]:
    kept = {}
    for key, value in tree.items():
        below = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping) and value:
            value = _pruned(value, below)
            if value:
                kept[key] = value
        elif rule_for(below).verdict is not Verdict.FREE:
            kept[key] = _canonical(value)
    return kept


def _canonical(value: Any) -> Any:
    """The value as one text: a default may be 0 where the same value in a file is read as 0.0."""
    if isinstance(value, Mapping):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < MAX_WHOLE
    return int(value) if is_whole else value


def _shown(value: Any) -> str:
    if value is _NOT_THERE:
        return "(not there)"
    names = _names(value)
    text = f"[{', '.join(names)}]" if names else _text(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_text(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return value if isinstance(value, str) and value.isprintable() and value else json.dumps(value)


@cache
def _pattern(keys: str) -> re.Pattern[str]:
    is_all_below = keys.endswith("**")
    start = keys.removesuffix("**").removesuffix(".")
    text = re.escape(start).replace(r"\*", "[^.]*")
    below = r"(\..+)?" if start else ".+"
    return re.compile(text + below if is_all_below else text)
