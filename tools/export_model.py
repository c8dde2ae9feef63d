# SPDX-License-Identifier: Apache-2.0
"""Export trained weights for deployment: python tools/export_model.py -c FILE -o Global.pretrained_model=WEIGHTS."""

import os
import sys

if not __package__:  # run from a checkout, not installed
    sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), "..")))

from ppcls.utils.cli import config_parser, run


def main() -> None:
    """Read the command line and the file, then export."""
    parser = config_parser(
        __doc__,
        "example:\n  python tools/export_model.py -c configs/quick_start/digits.yaml "
        "-o Global.pretrained_model=output/digits/best_model --onnx",
    )
    parser.add_argument("--onnx", action="store_true", help="also write model.onnx: short for Global.export_onnx=true")
    arguments = parser.parse_args()
    if arguments.onnx:
        arguments.override.append("Global.export_onnx=true")
    # Paddle 3.3.1 warns of each traced graph that it "not support input out tensor", which no graph here asks for.
    os.environ.setdefault("GLOG_minloglevel", "2")
    from ppcls.config import load_config
    from ppcls.engine import Engine

    Engine(load_config(arguments.config, arguments.override)).export()


if __name__ == "__main__":
    run(main)
