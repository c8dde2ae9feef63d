# SPDX-License-Identifier: Apache-2.0
"""Classify images with trained weights: one JSON line for each image on standard output.

An image that cannot be read gets a line with "error"; the others are answered, and the exit code is 3.
"""

import json
import os
import sys

if not __package__:  # run from a checkout, not installed
    sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), "..")))

from ppcls.utils.cli import config_arguments, run

EXAMPLE = """python tools/infer.py -c configs/quick_start/digits.yaml \\
      -o Global.pretrained_model=output/digits/best_model -o Infer.infer_imgs=IMAGE_OR_FOLDER"""


def one_line(result: dict) -> str:
    """A result as JSON; bytes of a file name that are not UTF-8 are escaped, as JSON can hold them."""
    return json.dumps(result, ensure_ascii=False).encode("utf-8", "backslashreplace").decode("utf-8")


def main() -> None:
    """Read the command line and the file, then answer."""
    arguments = config_arguments(__doc__, EXAMPLE)
    from ppcls.config import load_config
    from ppcls.engine import Engine
    from ppcls.utils.errors import DataError

    config = load_config(arguments.config, arguments.override)
    results = []
    for result in Engine(config).infer():
        print(one_line(result), flush=True)
        results.append(result)
    if config.Infer.save_dir:
        with open(config.Infer.save_dir, "w", encoding="utf-8", errors="backslashreplace") as file:
            json.dump(results, file, ensure_ascii=False, indent=1)
    num_bad = sum("error" in result for result in results)
    if num_bad:
        raise DataError(f"{num_bad} of {len(results)} images could not be read; their lines say why")


if __name__ == "__main__":
    run(main)
