# SPDX-License-Identifier: Apache-2.0
"""Packages that ppcls needs or can use, and combinations that are known not to work: tables, and what looks at them."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from itertools import combinations
from typing import Any, NamedTuple

OK, WARNING, ERROR = "ok", "warning", "error"
_SIGNS = {"==": operator.eq, ">=": operator.ge, "<=": operator.le, "<": operator.lt, ">": operator.gt}


class Finding(NamedTuple):
    """One line of the doctor: what was looked at, what is there, what to do about it, and the figure for programs."""

    level: str
    what: str
    figure: str
    advice: str = ""
    value: Any = None

    def __str__(self) -> str:
        return f"{self.level:<7}  {self.what}: {self.figure}{f'; {self.advice}' if self.advice else ''}"


class Package(NamedTuple):
    """A package: its names on PyPI (builds of the same module, the usual one first), what is needed, what for."""

    names: tuple[str, ...]
    versions: str
    purpose: str = ""


class Rule(NamedTuple):
    """A known combination: it concerns an installed package, perhaps only beside another one."""

    level: str
    package: str
    versions: str
    beside: str
    beside_versions: str
    says: str
    advice: str = ""


BUILDS = tuple(f"paddlepaddle{build}" for build in ("", "-gpu", "-xpu", "-dcu", "-npu", "-rocm", "-mlu", "-ipu"))
OPENCV = tuple(
    f"opencv-{build}" for build in ("python-headless", "python", "contrib-python-headless", "contrib-python")
)
PYTHON = ">=3.9,<3.14"
PADDLE = Package(BUILDS, ">=3.3.1,<3.4")
REQUIRED = (
    Package(("numpy",), ">=2.0"),
    Package(OPENCV, ">=5.0"),
    Package(("pillow",), ">=10.0"),
    Package(("pyyaml",), ">=6.0"),
    Package(("safetensors",), ">=0.6.0"),
    Package(("tqdm",), ">=4.62"),
)
OPTIONAL = (
    Package(("paddle2onnx",), "==2.1.0", "export to ONNX; has no wheel for Python 3.13"),
    Package(("onnx",), ">=1.16.1,<=1.17.0", "comes with paddle2onnx"),
    Package(("onnxruntime",), ">=1.19", "export to ONNX, Global.runtime"),
    Package(("ml-dtypes",), ">=0.4", "export to int8"),
    Package(("visualdl",), ">=2.5.3", "Global.use_visualdl"),
    Package(("matplotlib",), ">=3.8", "tools/plot_curves.py"),
    Package(("aiohttp",), ">=3.11", "tools/serve.py"),
    Package(("prometheus-client",), ">=0.20", "tools/serve.py"),
    Package(("s3fs",), ">=2024.6", "s3:// addresses"),
)

_GPU_INDEX = "https://www.paddlepaddle.org.cn/packages/stable/"
_ONE_CV2 = "both provide the module cv2, and removing one breaks the other"
_ONE_PADDLE = "both provide the module paddle, and overwrite each other's files"
RULES = (
    Rule(
        *(ERROR, "paddle", "", "", "", "PyPI's paddle is an unrelated package with the module name of PaddlePaddle"),
        "pip uninstall paddle, then pip install --force-reinstall paddlepaddle==3.3.1",
    ),
    *(
        Rule(ERROR, one, "", other, "", _ONE_PADDLE, f"pip uninstall {one} {other}, then install one of them")
        for one, other in combinations(BUILDS, 2)
    ),
    Rule(
        *(ERROR, "paddlepaddle-gpu", "<3", "", "", "PyPI has only version 2 of the GPU build"),
        f"pip install paddlepaddle-gpu==3.3.1 -i {_GPU_INDEX}cu126/ (cu118, ...: the index that fits the driver)",
    ),
    *(
        Rule(WARNING, one, "", other, "", _ONE_CV2, f"pip uninstall {one} {other}, then install one of them")
        for one, other in combinations(OPENCV, 2)
    ),
    *(
        rule
        for name in OPENCV
        for rule in (
            Rule(
                *(ERROR, name, "<4.10", "numpy", ">=2", "this OpenCV was built for NumPy 1 and cannot be imported"),
                f"pip install '{name}>=5.0'",
            ),
            Rule(
                *(ERROR, name, ">=5", "numpy", "<2", "this OpenCV was built for NumPy 2"),
                "pip install 'numpy>=2.0'",
            ),
        )
    ),
    Rule(
        *(OK, "visualdl", "<=2.5.3", "numpy", ">=1.24"),
        "scalars, which ppcls writes, work; this VisualDL's PR and ROC curves need an older NumPy",
    ),
    Rule(
        *(WARNING, "paddle2onnx", "<=2.1.0", "onnx", ">1.17.0", "this paddle2onnx asks for onnx 1.16.1 to 1.17.0"),
        "pip install 'onnx>=1.16.1,<=1.17.0'",
    ),
    Rule(
        *(WARNING, "paddle2onnx", "<=2.1.0", "onnx", "<1.16.1", "this paddle2onnx asks for onnx 1.16.1 to 1.17.0"),
        "pip install 'onnx>=1.16.1,<=1.17.0'",
    ),
    Rule(
        *(WARNING, "paddleclas", "", "", "", "PaddleClas asks for NumPy 1.24 and OpenCV 4.6, ppcls for newer ones"),
        "give PaddleClas an environment of its own",
    ),
)


def installed_packages() -> dict[str, str]:
    """Return the version of every installed package; names in lower case, with hyphens."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name, version = distribution.metadata.get("Name"), distribution.metadata.get("Version")
        if name and version:
            # The first one on the path is the one that is imported.
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)
    return found


def fits(version: str, wanted: str) -> bool:
    """Whether a version is as wanted, such as ``>=2,<3``; what is behind its numbers (``rc1``) is ignored."""
    have = _numbers(version)
    for clause in filter(None, wanted.split(",")):
        sign = clause.rstrip(".0123456789")
        limit = _numbers(clause[len(sign) :])
        size = max(len(have), len(limit))
        one, other = (numbers + (0,) * (size - len(numbers)) for numbers in (have, limit))
        if not _SIGNS[sign](one, other):
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


def check_packages(installed: Mapping[str, str]) -> Iterator[Finding]:
    """Look at every package by itself.

    Args:
        installed: versions by name; names in lower case, with hyphens.
    """
    yield _paddle(installed)
    for package in REQUIRED:
        names = [name for name in package.names if name in installed]
        name = names[0] if names else package.names[0]
        install = f"pip install '{name}{package.versions}'"
        if not names:
            yield Finding(ERROR, name, "not installed", install)
        else:
            version = installed[name]
            is_good = fits(version, package.versions)
            yield Finding(OK if is_good else ERROR, name, version, "" if is_good else install, version)
    for package in OPTIONAL:
        name = package.names[0]
        install = f"pip install '{name}{package.versions}'"
        version = installed.get(name, "")
        if not version:
            yield Finding(OK, name, f"not installed (optional: {package.purpose})")
        else:
            is_good = fits(version, package.versions)
            yield Finding(OK if is_good else WARNING, name, version, "" if is_good else f"untested; {install}", version)


def _paddle(installed: Mapping[str, str]) -> Finding:
    names = [name for name in PADDLE.names if name in installed]
    if not names:
        return Finding(ERROR, "paddlepaddle", "not installed", "pip install paddlepaddle==3.3.1")
    name, version = names[0], installed[names[0]]
    if fits(version, PADDLE.versions):
        return Finding(OK, name, version, value=version)
    # What is new may well work; what is old lacks what ppcls calls.
    is_old = fits(version, "<3.3")
    says = "too old" if is_old else "untested"
    return Finding(ERROR if is_old else WARNING, name, version, f"{says}; ppcls is tested with 3.3.1", version)


def check_pairs(installed: Mapping[str, str]) -> Iterator[Finding]:
    """Look for the combinations of `RULES`.

    Args:
        installed: as for `check_packages`.
    """
    for rule in RULES:
        version, other = installed.get(rule.package), installed.get(rule.beside)
        if version is None or not fits(version, rule.versions):
            continue
        what = f"{rule.package} {version}"
        if rule.beside:
            if other is None or not fits(other, rule.beside_versions):
                continue
            what += f" with {rule.beside} {other}"
        yield Finding(rule.level, what, rule.says, rule.advice)
