# SPDX-License-Identifier: Apache-2.0
"""Evaluate trained weights: python tools/eval.py -c FILE -o Global.pretrained_model=WEIGHTS."""

import os
import sys

if not __package__:  # run from a checkout, not installed
    sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), "..")))

from ppcls.utils.cli import config_arguments, importing, run


def main() -> None:
    """Read the command line and the file, then evaluate."""
    arguments = config_arguments(
        __doc__,
        "python tools/eval.py -c configs/quick_start/digits.yaml -o Global.pretrained_model=output/digits/best_model",
    )
    with importing():
        from ppcls.config import load_config
        from ppcls.engine import Engine

    Engine(load_config(arguments.config, arguments.override)).eval()


if __name__ == "__main__":
    run(main)
