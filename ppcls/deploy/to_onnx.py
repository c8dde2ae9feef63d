# SPDX-License-Identifier: Apache-2.0
"""An exported graph as ONNX: ``python -m ppcls.deploy.to_onnx DIRECTORY`` writes ``model.onnx`` into it.

A process of its own, because paddle2onnx ends the process that it fails in.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ppcls.deploy.bundle import GRAPH, ONNX_GRAPH, PARAMETERS
from ppcls.deploy.process import failure_of_module
from ppcls.utils.errors import ConfigError, ParityError

OPSET = 17
BATCH = "batch"
PACKAGES = ("paddle2onnx", "onnx", "onnxruntime")


def require_onnx() -> None:
    """Make sure that the packages for ONNX are there, before anything is done.

    Raises:
        ConfigError: one is missing.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f'Global.export_for: {" and ".join(missing)} not installed; pip install "ppcls[onnx]" '
            "(paddle2onnx has wheels up to Python 3.12)"
        )


def write_onnx(directory: Path) -> None:
    """Add ``model.onnx`` to the graph and weights in a directory.

    Raises:
        ParityError: the graph has something that ONNX or paddle2onnx has no word for.
    """
    reason = failure_of_module("ppcls.deploy.to_onnx", directory)
    if reason:
        raise ParityError(f"the graph cannot be converted to ONNX ({reason}); nothing was published")


def main(directory: str) -> None:
    """Convert, name the batch dimension, and check the result by the rules of ONNX."""
    import onnx
    import paddle2onnx

    graph = Path(directory, GRAPH)
    converted = Path(directory, ONNX_GRAPH)
    program = json.loads(graph.read_text(encoding="utf-8"))
    shorten_doubles(program["program"])
    mended = Path(directory, f"onnx.{GRAPH}")
    mended.write_text(json.dumps(program), encoding="utf-8")
    paddle2onnx.export(
        str(mended),
        str(Path(directory, PARAMETERS)),
        str(converted),
        opset_version=OPSET,
        auto_upgrade_opset=False,
        optimize_tool="None",
    )
    mended.unlink()
    model = onnx.load(converted)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, converted)


def shorten_doubles(node: Any, is_read_as_float: bool = False) -> None:
    """Change the numbers of a program's operators from double to float, in place.

    Paddle 3.3.1 stores them as double where paddle2onnx 2.1.0 reads float: without a word it writes whatever lies in
    memory as the slope of a leaky ReLU, the epsilon of a group norm (Paddle2ONNX#1646) or the value of a padding, and
    it refuses an upsampling by a factor (Paddle#77757). Only constants (``full``) are read as double.
    """
    if isinstance(node, dict):
        kind = node.get("#")
        if isinstance(kind, str) and kind.startswith("1."):  # an operator
            is_read_as_float = not kind.startswith("1.full")
        elif kind == "0.a_f64" and is_read_as_float:
            node["#"] = "0.a_f32"
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        shorten_doubles(value, is_read_as_float)


if __name__ == "__main__":
    main(*sys.argv[1:])
