# SPDX-License-Identifier: Apache-2.0
"""Train a model: python tools/train.py -c FILE [-o KEY.PATH=VALUE ...]."""

import os
import sys

if not __package__:  # run from a checkout, not installed
    sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), "..")))

from ppcls.utils.cli import config_arguments, run


def main() -> None:
    """Read the command line and the file, then train."""
    arguments = config_arguments(__doc__, "python tools/train.py -c configs/quick_start/digits.yaml -o Global.epochs=5")
    from ppcls.config import load_config
    from ppcls.engine import Engine

    Engine(load_config(arguments.config, arguments.override)).train()


if __name__ == "__main__":
    run(main)
