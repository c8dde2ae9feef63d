# SPDX-License-Identifier: Apache-2.0
"""What a run ran in: versions, machine, command. Nothing in it is secret."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ppcls.utils.download import without_secrets
from ppcls.utils.machine import available_memory, usable_cores
from ppcls.utils.packages import OPTIONAL, PADDLE, REQUIRED, installed_packages

SHOWN_VARIABLES = (
    "ASCEND_RT_VISIBLE_DEVICES",
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "PYTHONHASHSEED",
    "XPU_VISIBLE_DEVICES",
)
"""Environment variables that change what a run computes or how fast, with Paddle's own, ``FLAGS_*``."""
_ROOT = Path(__file__).resolve().parents[2]
_SECRET_KEY = re.compile(
    r"(?i)((?:password|passwd|secret|token|credential|access_?key|api_?key)\w{0,40}[\"']?\s*[=:]\s*)\S+"
)


def environment(argv: Iterable[str], device: str, processes: int) -> dict[str, Any]:
    """Describe this run's surroundings.

    Args:
        argv: the command line.
        device: full name of the device that is computed on.
        processes: how many of them train together.
    """
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "system": system(),
        "packages": package_versions(),
        "device": device,
        "processes": processes,
        "cores": usable_cores(),
        "available_memory_bytes": available_memory(),
        "command": shown_command(argv),
        "variables": shown_variables(os.environ),
    }


def package_versions() -> dict[str, str]:
    """Versions of the packages that ppcls uses, as far as they are installed."""
    installed = installed_packages()
    wanted = [name for package in (PADDLE, *REQUIRED, *OPTIONAL) for name in package.names]
    return {name: installed[name] for name in wanted if name in installed}


def system() -> str:
    """Return operating system, processor and C library, such as ``Linux 6.1 x86_64, glibc 2.36``."""
    libc = " ".join(platform.libc_ver())
    return f"{platform.system()} {platform.release()} {platform.machine()}{f', {libc}' if libc.strip() else ''}"


def commit(root: Path = _ROOT) -> str | None:
    """Return the commit of a checkout, ``-dirty`` behind it when files differ from it; None when it is none."""
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        # Without the optional lock nothing is written to the checkout.
        done = subprocess.run(
            command,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def shown_command(argv: Iterable[str]) -> list[str]:
    """Return a command line as it may be shown."""
    return [hide_secrets(str(word), sys.maxsize) for word in argv]


def hide_secrets(text: str, size: int = 1000) -> str:
    """Return text without users, passwords and signatures of URLs, and without values whose key names a secret.

    Args:
        text: what is to be shown.
        size: characters after which it is cut.
    """
    text = re.sub(r"(?<=://)\S*@", "", text)  # also where a password has a slash in it
    text = re.sub(r"\w{1,20}://\S+", lambda match: without_secrets(match[0]), text)
    return _SECRET_KEY.sub(r"\1***", text)[:size]


def shown_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that may be shown."""
    names = sorted(name for name in variables if name in SHOWN_VARIABLES or name.startswith("FLAGS_"))
    return {name: hide_secrets(variables[name]) for name in names}


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return what differs between two environments as ``name: before -> after``; packages by their names.

    Cores, memory and the command line are left out: they change from start to start and change no result.
    """
    ignored = ("available_memory_bytes", "command", "cores", "time")
    found = []
    for name in sorted({*before, *after} - {*ignored}):
        old, new = before.get(name), after.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += changes(old, new)
        elif old != new:
            found.append(f"{name}: {old} -> {new}")
    return found
