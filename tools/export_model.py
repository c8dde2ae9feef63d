# SPDX-License-Identifier: Apache-2.0
"""Export trained weights for deployment: python tools/export_model.py -c FILE -o Global.pretrained_model=WEIGHTS."""

import os
import sys

if not __package__:  # run from a checkout, not installed
    sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), "..")))

from ppcls.utils.cli import config_parser, importing, run


def main() -> None:
    """Read the command line and the file, then export."""
    parser = config_parser(
        __doc__,
        "example:\n  python tools/export_model.py -c configs/quick_start/digits.yaml "
        "-o Global.pretrained_model=output/digits/best_model --onnx",
    )
    parser.add_argument(
        "--onnx", action="store_true", help="also write model.onnx: short for Global.export_for=[onnxruntime]"
    )
    parser.add_argument(
        "--fold-preprocess",
        action="store_true",
        help="the graph normalizes by itself and takes bytes: short for Global.fold_preprocess=true",
    )
    parser.add_argument(
        "--allow-mismatch",
        metavar="ENGINE",
        choices=("paddle", "paddle_onednn", "onnxruntime"),
        action="append",
        help="publish although this engine does not answer as the trained model does, and mark it as unfit",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="also write model.onnx and model_int8.onnx: short for Global.export_for=[onnxruntime, int8]",
    )
    parser.add_argument(
        "--allow-int8-loss",
        action="store_true",
        help="publish even if int8 costs more than half a point of accuracy: short for Global.allow_int8_loss=true",
    )
    arguments = parser.parse_args()
    if arguments.onnx or arguments.int8:
        arguments.override.append(f"Global.export_for=[onnxruntime{', int8' if arguments.int8 else ''}]")
    if arguments.allow_int8_loss:
        arguments.override.append("Global.allow_int8_loss=true")
    if arguments.fold_preprocess:
        arguments.override.append("Global.fold_preprocess=true")
    if arguments.allow_mismatch:
        arguments.override.append(f"Global.allow_mismatch=[{', '.join(arguments.allow_mismatch)}]")
    # Paddle 3.3.1 warns of each traced graph that it "not support input out tensor", which no graph here asks for.
    os.environ.setdefault("GLOG_minloglevel", "2")
    with importing():
        from ppcls.config import load_config
        from ppcls.engine import Engine

    Engine(load_config(arguments.config, arguments.override)).export()


if __name__ == "__main__":
    run(main)
