# SPDX-License-Identifier: Apache-2.0
"""Classify images: one JSON line for each image on standard output.

With a configuration and trained weights, or with an exported model alone (--bundle), which needs no training code.
An image that cannot be read gets a line with "error"; the others are answered, and the exit code is 3.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

if not __package__:  # run from a checkout, not installed
    sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), "..")))

from ppcls.utils.cli import config_parser, importing, run

EXAMPLES = """examples:
  python tools/infer.py -c configs/quick_start/digits.yaml \\
      -o Global.pretrained_model=output/digits/best_model -o Infer.infer_imgs=IMAGE_OR_FOLDER
  python tools/infer.py --bundle inference/digits IMAGE_OR_FOLDER"""


def main() -> None:
    """Read the command line, then answer."""
    arguments = _arguments()
    results, save_to = _of_bundle(arguments) if arguments.bundle else _of_config(arguments)
    given = []
    for result in results:
        print(one_line(result), flush=True)
        given.append(result)
    if save_to:
        with open(save_to, "w", encoding="utf-8", errors="backslashreplace") as file:
            json.dump(given, file, ensure_ascii=False, indent=1)
    num_bad = sum("error" in result for result in given)
    if num_bad:
        from ppcls.utils.errors import DataError

        raise DataError(f"{num_bad} of {len(given)} images could not be read; their lines say why")


def one_line(result: dict) -> str:
    """A result as JSON; bytes of a file name that are not UTF-8 are escaped, as JSON can hold them."""
    return json.dumps(result, ensure_ascii=False).encode("utf-8", "backslashreplace").decode("utf-8")


def _arguments() -> argparse.Namespace:
    parser = config_parser(__doc__, EXAMPLES, is_required=False)
    parser.add_argument("--bundle", metavar="DIR", help="an exported model; then give images, and no -c")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="with --bundle: image files and folders of them")
    parser.add_argument(
        "--runtime",
        help="with --bundle: paddle, paddle_onednn, onnxruntime, int8, tensorrt; by default the fastest at the export",
    )
    parser.add_argument("--device", help="with --bundle: cpu (default), gpu, gpu:1, ...")
    parser.add_argument("--threads", type=_count, help="with --bundle: of the CPU; by default all cores")
    parser.add_argument("--batch_size", type=_count, help="with --bundle: images answered at once (default: 1)")
    arguments = parser.parse_intermixed_args()
    if bool(arguments.config) == bool(arguments.bundle):
        parser.error("give either -c FILE or --bundle DIR")
    if bool(arguments.images) != bool(arguments.bundle):
        parser.error("--bundle needs images" if arguments.bundle else "images are given by -o Infer.infer_imgs=...")
    if arguments.bundle and arguments.override:
        parser.error("-o belongs to -c FILE; an exported model brings its own settings along")
    for option, instead in INSTEAD.items():
        if arguments.config and getattr(arguments, option) is not None:
            parser.error(f"--{option} belongs to --bundle; {instead}")
    return arguments


INSTEAD = {
    "runtime": "write -o Global.bundle=DIR -o Global.runtime=...",
    "device": "write -o Global.device=...",
    "threads": "set OMP_NUM_THREADS",
    "batch_size": "write -o Infer.batch_size=...",
}
"""What is written with a configuration in place of an option."""


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more; got {text}")
    return int(text)


def _of_bundle(arguments: argparse.Namespace) -> tuple[Iterator[dict[str, Any]], None]:
    from ppcls.data.images import find_images
    from ppcls.deploy.classifier import Classifier

    paths = [path for place in arguments.images for path in find_images(place)]
    runtime, device = arguments.runtime or "auto", arguments.device or "cpu"
    classifier = Classifier(arguments.bundle, runtime, device, arguments.threads)
    return classifier(paths, arguments.batch_size or 1), None


def _of_config(arguments: argparse.Namespace) -> tuple[Iterator[dict[str, Any]], str | None]:
    with importing():
        from ppcls.config import load_config
        from ppcls.engine import Engine

    config = load_config(arguments.config, arguments.override)
    return Engine(config).infer(), config.Infer.save_dir if config.Infer else None


if __name__ == "__main__":
    run(main)
