# SPDX-License-Identifier: Apache-2.0
"""Weight files: find or fetch them, read them without running what they hold, load them and say what did not match."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import paddle
import safetensors

from ppcls.utils.download import is_url, without_secrets
from ppcls.utils.errors import StorageError
from ppcls.utils.local_copy import local_path
from ppcls.utils.storage import verify
from ppcls.utils.unpickle import load_arrays

logger = logging.getLogger(__name__)

_BUCKET = "https://paddle-imagenet-models-name.bj.bcebos.com/dygraph"
PRETRAINED_URLS = {
    f"DenseNet{depth}": f"{_BUCKET}/DenseNet{depth}_pretrained.pdparams" for depth in (121, 161, 169, 201, 264)
}

_ENDINGS = (".safetensors", ".pdparams")
# Keys that `paddle.save` adds to a state dict: names of internal parameters, and how it cut up very large arrays.
_NAME_TABLE = "StructuredToParameterName@@"
_SLICE_TABLE = "UnpackBigParamInfor@@"
_SAFETENSORS_DTYPES = {
    "BOOL": "?",
    "I8": "<i1",
    "I16": "<i2",
    "I32": "<i4",
    "I64": "<i8",
    "U8": "<u1",
    "U16": "<u2",
    "U32": "<u4",
    "U64": "<u8",
    "F16": "<f2",
    "BF16": "<u2",
    "F32": "<f4",
    "F64": "<f8",
}


@dataclass(frozen=True)
class LoadReport:
    """What became of each name when weights were loaded; its text is one line.

    Attributes:
        source: where the weights came from.
        num_matched: names that are in the file and in the model, with one shape.
        missing: names that only the model has.
        unexpected: names that only the file has.
        wrong_shape: names that both have: the shape in the file, the shape in the model.
    """

    source: str
    num_matched: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: dict[str, tuple[list[int], list[int]]]

    def __str__(self) -> str:
        shapes = [
            f"{name} {in_file} in the file, {in_model} in the model"
            for name, (in_file, in_model) in self.wrong_shape.items()
        ]
        return (
            f"{self.source}: {self.num_matched} matched"
            f", {len(self.missing)} missing{_first_few(self.missing)}"
            f", {len(self.unexpected)} unexpected{_first_few(self.unexpected)}"
            f", {len(shapes)} of another shape{_first_few(shapes, '; ')}"
        )


def load_pretrained(model: paddle.nn.Layer, name: str, pretrained: bool | str, use_ssld: bool = False) -> Any:
    """Return ``model``, filled with the weights that its configuration asks for.

    Args:
        model: a freshly built architecture.
        name: the architecture's name, for the table of published weights.
        pretrained: False for none, True for the published weights, otherwise whatever `read_weights` takes.
        use_ssld: with True, take the weights of the distilled teacher scheme (SSLD) in place of the plain ones.

    Raises:
        ValueError: there are no published weights for this name.
        StorageError: the weights cannot be had, read, or do not fit the model.
    """
    if use_ssld and pretrained is not True:
        logger.warning("%s: use_ssld chooses among published weights and has no effect without pretrained: True", name)
    if pretrained is False or pretrained is None:
        return model
    if pretrained is True:
        if use_ssld:
            raise ValueError(f"no published SSLD weights for {name}; leave use_ssld out or give Arch.pretrained a path")
        if name not in PRETRAINED_URLS:
            raise ValueError(f"no published weights for {name}; give Arch.pretrained a path")
        pretrained = PRETRAINED_URLS[name]
    logger.info("%s", load_weights(model, read_weights(pretrained), without_secrets(str(pretrained))))
    return model


def load_weights(
    model: paddle.nn.Layer,
    weights: dict[str, np.ndarray],
    source: str,
    allow: Literal["head", "all", "none"] = "head",
) -> LoadReport:
    """Copy weights into a model by structured name and return what matched; all or nothing when refused.

    Values are converted to the type of the parameter they fill; uint16 is taken for the bits of
    bfloat16, as Paddle stores it. What is allowed not to match keeps the value it has.

    Args:
        model: names what its classifier head is with the attribute ``head``, prefixes of state-dict keys.
        weights: arrays by state-dict key.
        source: where they came from, for messages.
        allow: which names need not match: those of the classifier head, any, or none.

    Raises:
        StorageError: a name that has to match does not, nothing at all matches, or a type cannot be converted.
    """
    parameters = model.state_dict()
    shapes = {name: list(parameter.shape) for name, parameter in parameters.items()}
    wrong_shape = {
        name: (list(array.shape), shapes[name])
        for name, array in weights.items()
        if name in shapes and list(array.shape) != shapes[name]
    }
    matched = [name for name in shapes if name in weights and name not in wrong_shape]
    report = LoadReport(
        source=source,
        num_matched=len(matched),
        missing=tuple(name for name in shapes if name not in weights),
        unexpected=tuple(name for name in weights if name not in shapes),
        wrong_shape=wrong_shape,
    )
    if not matched:
        raise StorageError(f"{report}; is this a checkpoint of another architecture? The model was not changed")
    head = tuple(getattr(model, "head", ())) if allow == "head" else ()
    differing = [*report.missing, *report.unexpected, *wrong_shape]
    if allow != "all" and not all(_is_under(name, head) for name in differing):
        exempt = f"only the classifier head ({', '.join(head)}) may differ" if head else "every name has to match"
        raise StorageError(f"{report}; {exempt}: give weights of this architecture. The model was not changed")
    values = {name: _converted(weights[name], parameters[name], f"{source}: {name}") for name in matched}
    for name, value in values.items():
        parameters[name].set_value(value)
    return report


def read_weights(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Return the arrays of a weight file or checkpoint by state-dict key; no code in the file is run.

    bfloat16 values come as uint16, their bits.

    Args:
        path: a checkpoint directory, a ``.safetensors`` or ``.pdparams`` file, or a URL: of a file on
            the web or in object storage (with ``#sha256=...`` when the digest is known), of a checkpoint directory
            in object storage. From a path the ending may be left out.
            A checkpoint is verified first; its averaged (EMA) weights are preferred.

    Raises:
        StorageError: not found, damaged, or with something in it that is not a weight.
    """
    path = _located(path)
    if path.is_dir():
        return _read_checkpoint(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _read_pdparams(path)


def _located(path: str | os.PathLike) -> Path:
    path = Path(local_path(str(path))) if is_url(path) else Path(path).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix in _ENDINGS):
        return path
    # Not with_suffix: the name of a model may have a dot in it, as in MobileNetV1_x0.25.
    candidates = [path.with_name(path.name + ending) for ending in _ENDINGS if path.name]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if path.is_file():
        raise StorageError(f"{path}: weights are read from files that end in {' or '.join(_ENDINGS)}")
    raise StorageError(f"{path}: no such weights (looked for a directory, {', '.join(c.name for c in candidates)})")


def _read_checkpoint(directory: Path) -> dict[str, np.ndarray]:
    files = verify(directory)["files"]
    if "model.safetensors" not in files:
        raise StorageError(f"{directory}: holds no model.safetensors, so it is not a checkpoint of a model")
    weights = _read_safetensors(directory / "model.safetensors")
    if "ema.safetensors" in files:
        averaged = _read_safetensors(directory / "ema.safetensors")
        weights.update(averaged)
        logger.info("%s: the averaged weights (EMA) are used, %d of %d arrays", directory, len(averaged), len(weights))
    return weights


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        entries = safetensors.deserialize(path.read_bytes())
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise StorageError(f"{path}: cannot be read as safetensors ({_one_line(error)})") from error
    weights = {}
    for name, entry in entries:
        dtype = _SAFETENSORS_DTYPES.get(entry["dtype"])
        if dtype is None:
            raise StorageError(f"{path}: {name} is of type {entry['dtype']}, which is not supported")
        weights[name] = np.frombuffer(entry["data"], dtype).reshape(entry["shape"])
    return weights


def _read_pdparams(path: Path) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as file:
            return _weights_of(load_arrays(file))
    except (OSError, LookupError, TypeError, ValueError) as error:
        reason = _one_line(error) or type(error).__name__
        raise StorageError(f"{path}: cannot be read as weights saved by paddle.save ({reason})") from error


def _weights_of(stored: Any) -> dict[str, np.ndarray]:
    if not isinstance(stored, dict):
        raise ValueError(f"it holds a {type(stored).__name__}, not a state dict")
    weights = {}
    for name, value in stored.items():
        if name in (_NAME_TABLE, _SLICE_TABLE):
            continue
        # `paddle.save` writes a tensor that is not in a model's own state dict as (internal name, array).
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
            value = value[1]
        if not isinstance(name, str) or not isinstance(value, np.ndarray):
            raise ValueError(f"its entry {name!r:.80} is not a weight")
        weights[name] = value
    # Below protocol 4, `paddle.save` cuts arrays of 1 GiB and more into flat slices.
    for name, info in stored.get(_SLICE_TABLE, {}).items():
        parts = [weights.pop(part) for part in info["slices"]]
        weights[name] = np.concatenate(parts).reshape(info["OriginShape"])
    return weights


def _converted(array: np.ndarray, parameter: paddle.Tensor, where: str) -> Any:
    wanted = str(parameter.dtype).rpartition(".")[2]
    is_floating = wanted == "bfloat16" or np.issubdtype(wanted, np.floating)
    if array.dtype == np.uint16 and is_floating:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    if not np.can_cast(array.dtype, np.float32 if wanted == "bfloat16" else wanted, casting="same_kind"):
        raise StorageError(f"{where} is {array.dtype} in the file, {wanted} in the model. The model was not changed")
    if wanted == "bfloat16":
        return paddle.to_tensor(array.astype(np.float32)).astype(wanted)
    return array.astype(wanted)


def _is_under(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def _first_few(items: Any, separator: str = ", ") -> str:
    items = list(items)
    if not items:
        return ""
    more = f"{separator}and {len(items) - 3} more" if len(items) > 3 else ""
    return f" ({separator.join(items[:3])}{more})"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
