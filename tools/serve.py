# SPDX-License-Identifier: Apache-2.0
"""Serve an exported model over HTTP: python tools/serve.py --bundle DIR.

POST /predict answers images, sent as they are or as multipart/form-data; GET / is a page to try it.
GET /healthz, /metadata and /metrics (Prometheus) are for those who run it. SIGTERM finishes what is taken in,
SIGHUP reads the bundle anew. Clients have to know a token if --token_file or PPCLS_SERVE_TOKEN gives one.
"""

from __future__ import annotations

import argparse
import os
import sys

if not __package__:  # run from a checkout, not installed
    sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), "..")))

from dataclasses import fields

from ppcls.utils.cli import run

EXAMPLES = """examples:
  python tools/serve.py --bundle inference/digits --port 8000
  curl --data-binary @IMAGE http://127.0.0.1:8000/predict
  curl -F a=@IMAGE -F b=@IMAGE http://127.0.0.1:8000/predict"""


def main() -> None:
    """Read the command line, then serve."""
    from ppcls.utils.errors import ConfigError
    from ppcls.utils.logger import start_logging

    try:
        from ppcls.serve.limits import Limits
        from ppcls.serve.server import Serving, serve
        from ppcls.serve.token import read_token
    except ModuleNotFoundError as error:
        if error.name not in ("aiohttp", "prometheus_client"):
            raise
        raise ConfigError(f'tools/serve.py needs {error.name}; pip install "ppcls[serve]"') from None
    arguments = _arguments(Limits)
    limits = Limits(**{each.name: getattr(arguments, each.name) for each in fields(Limits)})
    start_logging()
    serve(
        Serving(
            arguments.bundle,
            arguments.runtime,
            arguments.device,
            arguments.threads,
            arguments.host,
            arguments.port,
            limits,
            read_token(arguments.token_file),
            arguments.reload_seconds,
        )
    )


def _arguments(limits: type) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", metavar="DIR", required=True, help="what tools/export_model.py wrote")
    parser.add_argument(
        "--runtime",
        default="auto",
        help="paddle, paddle_onednn, onnxruntime, int8 or tensorrt; by default the fastest one at the export",
    )
    parser.add_argument("--device", default="cpu", help="cpu, gpu, gpu:1, ...")
    parser.add_argument("--threads", type=int, help="of the CPU, for the model; by default all cores")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; by default only this machine's own")
    parser.add_argument("--port", type=int, default=8000, help="0 for any that is free")
    parser.add_argument("--token_file", metavar="FILE", help="holds the token that clients have to send")
    parser.add_argument(
        "--reload_seconds", type=float, default=0.0, help="look so often for a new bundle; by default only at SIGHUP"
    )
    for each in fields(limits):
        says = f"{each.metadata['says']} (default: {each.default:g})".replace("%", "%%")
        if isinstance(each.default, int):
            says = f"{each.metadata['says']} (default: {each.default})"
        parser.add_argument(f"--{each.name}", type=type(each.default), default=each.default, metavar="N", help=says)
    arguments = parser.parse_args()
    if not 0 <= arguments.reload_seconds < 1e9:
        parser.error("--reload_seconds: expected 0 or more seconds")
    if arguments.threads is not None and arguments.threads < 1:
        parser.error("--threads: expected at least 1")
    return arguments


if __name__ == "__main__":
    run(main)
