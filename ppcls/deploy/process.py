# SPDX-License-Identifier: Apache-2.0
"""A fresh process: what an export is proven in, as nothing of the training's own process can help it there."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

REASON = re.compile(r"error|failed", re.IGNORECASE)
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def failure_of_module(module: str, *arguments: str | os.PathLike) -> str | None:
    """Run ``python -m module arguments``; the line that says why it failed, or None when it did not.

    Raises:
        OSError: the disk is full.
    """
    root = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PADDLE_")}
    # The conversion to ONNX uses a package that otherwise installs others by itself.
    environment |= {"PYTHONPATH": search, "POLYGRAPHY_AUTOINSTALL_DEPS": "0"}
    finished = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if finished.returncode == 0:
        return None
    if os.strerror(errno.ENOSPC) in finished.stdout + finished.stderr:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    lines = [line.strip() for line in COLOURS.sub("", finished.stdout + finished.stderr).splitlines() if line.strip()]
    telling = [line for line in lines if REASON.search(line)]
    # paddle2onnx names the operator first, and then says only that there was one.
    named = [line for line in telling if "[OP:" in line]
    if finished.returncode < 0:
        said = (named or telling)[-1:]
        return "; ".join([f"ended by {signal.Signals(-finished.returncode).name}", *said])
    return (named or telling or lines or [f"exit code {finished.returncode}"])[-1]
