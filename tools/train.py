# SPDX-License-Identifier: Apache-2.0
"""Train a model: python tools/train.py -c FILE [-o KEY.PATH=VALUE ...]."""

import os
import signal
import sys

if not __package__:  # run from a checkout, not installed
    sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), "..")))

from ppcls.utils.cli import config_arguments, importing, run


def main() -> None:
    """Read the command line and the file, then train."""
    if hasattr(signal, "SIGUSR1"):
        # It asks a training for a checkpoint; before and after that there is nothing to save, and nothing to end for.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    arguments = config_arguments(__doc__, "python tools/train.py -c configs/quick_start/digits.yaml -o Global.epochs=5")
    with importing():
        from ppcls.config import load_config
        from ppcls.engine import Engine

    Engine(load_config(arguments.config, arguments.override)).train()


if __name__ == "__main__":
    run(main)
