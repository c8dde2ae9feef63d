# SPDX-License-Identifier: Apache-2.0
"""Is this machine fit to train on? Small looks at it, each a `Finding`; those with a figure are functions of it."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ppcls.utils.machine import available_memory, usable_cores
from ppcls.utils.packages import ERROR, OK, PYTHON, WARNING, Finding, check_packages, check_pairs, fits

GIB = 1 << 30
LITTLE_MEMORY_BYTES = 2 * GIB
LITTLE_SPACE_BYTES = GIB
"""A checkpoint is three times the size of a model; two and a new one have to fit."""
FEW_FILES = 1024


def size(num_bytes: float) -> str:
    """Write a number of bytes for people, in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.3g} {unit}" if num_bytes < 1000 else f"{num_bytes:.0f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.3g} TiB" if num_bytes < 1000 else f"{num_bytes:.0f} TiB"


def check_python(version: str) -> Finding:
    """Whether this Python is one that ppcls runs on."""
    is_good = fits(version, PYTHON)
    return Finding(OK if is_good else ERROR, "Python", version, "" if is_good else "take 3.9 to 3.13", version)


def check_system(name: str, libc: str) -> Finding:
    """Whether Paddle has wheels for this system.

    Args:
        name: system and processor.
        libc: the C library's name and version; empty where nobody says.
    """
    if name.startswith("Linux") and not libc.startswith("glibc"):
        return Finding(WARNING, "system", name, "no GNU C library found; Paddle's wheels need one, such as Debian's")
    if not name.startswith("Linux"):
        return Finding(WARNING, "system", name, "ppcls is tested on Linux only")
    return Finding(OK, "system", f"{name}, {libc}")


def check_devices(devices: Sequence[str], is_gpu_build: bool, has_nvidia: bool) -> Finding:
    """Whether Paddle sees what this machine has.

    Args:
        devices: what Paddle lists.
        is_gpu_build: whether it was compiled with CUDA or ROCm.
        has_nvidia: whether the driver shows a GPU of NVIDIA.
    """
    listed = ", ".join(devices)
    advice = ""
    if is_gpu_build and not any(name.startswith("gpu") for name in devices):
        advice = "a GPU build that finds no GPU; look at nvidia-smi, CUDA_VISIBLE_DEVICES and docker --gpus"
    elif has_nvidia and set(devices) == {"cpu"}:
        advice = "there is a GPU of NVIDIA, but this Paddle is the CPU build; README.md has the command for the other"
    return Finding(WARNING if advice else OK, "devices", listed, advice, list(devices))


def check_cores(cores: int) -> Finding:
    """How many cores there are for data workers."""
    return Finding(OK, "cores", str(cores), value=cores)


def check_memory(num_bytes: int | None) -> Finding:
    """Whether there is memory to train in."""
    if num_bytes is None:
        return Finding(OK, "memory", "unknown")
    is_little = num_bytes < LITTLE_MEMORY_BYTES
    advice = "little; end other programs, or train with few workers and small batches" if is_little else ""
    return Finding(WARNING if is_little else OK, "memory", f"{size(num_bytes)} available", advice, num_bytes)


def check_space(what: str, free: int, total: int, can_write: bool, advice: str) -> Finding:
    """Whether a directory can take files.

    Args:
        what: its name.
        free: bytes that can still be written.
        total: bytes of its file system.
        can_write: whether this process may.
        advice: what to do when it cannot take files, or few.
    """
    figure = f"{size(free)} free of {size(total)}"
    if not can_write:
        return Finding(WARNING, what, f"{figure}, cannot be written", advice, free)
    is_little = free < LITTLE_SPACE_BYTES
    return Finding(WARNING if is_little else OK, what, figure, f"little; {advice}" if is_little else "", free)


def check_shared_memory(free: int, total: int) -> Finding:
    """GPUs of one machine (NCCL) exchange data there; Docker gives it 64 MiB."""
    is_little = total < LITTLE_SPACE_BYTES
    advice = "little for several GPUs; docker run --shm-size=8g" if is_little else ""
    return Finding(WARNING if is_little else OK, "/dev/shm", f"{size(free)} free of {size(total)}", advice, free)


def check_open_files(limit: int) -> Finding:
    """How many files this process may have open at once."""
    unlimited = limit == resource.RLIM_INFINITY
    is_few = not unlimited and limit < FEW_FILES
    advice = f"few for many workers; ulimit -n {4 * FEW_FILES}" if is_few else ""
    return Finding(WARNING if is_few else OK, "open files", "no limit" if unlimited else str(limit), advice, limit)


def check_that(what: str, test: Callable[[], str], advice: str) -> Finding:
    """Run a self-test.

    Args:
        what: its name.
        test: gives the figure; raises when something is wrong.
        advice: what to do then.
    """
    try:
        return Finding(OK, what, test())
    except Exception as error:  # noqa: BLE001 (whatever it is, it is what was looked for)
        first = next(iter(str(error).strip().splitlines()), "")
        return Finding(ERROR, what, f"{type(error).__name__}: {first}"[:300], advice)


def machine_findings(installed: dict[str, str], cache: Path | None) -> Iterator[Finding]:
    """All that can be said without Paddle, even where it cannot be imported.

    Args:
        installed: what `installed_packages` returned.
        cache: where fetched files are kept; None where that cannot be told.
    """
    yield check_python(platform.python_version())
    name = f"{platform.system()} {platform.release()} {platform.machine()}"
    yield check_system(name, " ".join(platform.libc_ver()).strip())
    yield from check_packages(installed)
    yield from check_pairs(installed)
    yield check_cores(usable_cores())
    yield check_memory(available_memory())
    yield check_open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    if Path("/dev/shm").is_dir():
        usage = shutil.disk_usage("/dev/shm")
        yield check_shared_memory(usage.free, usage.total)
    try:
        temporary = Path(tempfile.gettempdir())
    except FileNotFoundError:
        temporary = None
        yield Finding(ERROR, "temporary directory", "none can be written", "set TMPDIR")
    for what, directory, advice in (
        ("temporary directory", temporary, "set TMPDIR to another"),
        ("cache directory", cache, "name another in PPCLS_CACHE or Global.cache_dir"),
        ("current directory", Path.cwd(), "outputs go there; give another as Global.output_dir"),
    ):
        if directory is None:
            continue
        # It may not be there yet: what counts is where it would be made.
        place = next(path for path in (directory, *directory.absolute().parents) if path.is_dir())
        usage = shutil.disk_usage(place)
        yield check_space(what, usage.free, usage.total, os.access(place, os.W_OK), advice)
