# SPDX-License-Identifier: Apache-2.0
"""Which packages are named as missing, too old, untested or in each other's way."""

import ast
import re
from pathlib import Path

import pytest

from ppcls.utils import packages
from ppcls.utils.packages import ERROR, OK, WARNING, check_packages, check_pairs, fits, installed_packages

ROOT = Path(__file__).resolve().parents[2]
GOOD = {
    "paddlepaddle": "3.3.1",
    "numpy": "2.4.6",
    "opencv-python-headless": "5.0.0.93",
    "pillow": "13.0.0",
    "pyyaml": "6.0.3",
    "safetensors": "0.8.0",
    "tqdm": "4.70.1",
}
EXTRAS = {"paddle2onnx": "2.1.0", "onnx": "1.17.0", "onnxruntime": "1.31.1", "visualdl": "2.5.3"}


@pytest.mark.parametrize(
    ("version", "wanted", "expected"),
    [
        ("3.3.1", ">=3.3.1,<3.4", True),
        ("3.3.1.post126", ">=3.3.1,<3.4", True),
        ("3.4.0", ">=3.3.1,<3.4", False),
        ("3.3.0", ">=3.3.1,<3.4", False),
        ("3.10", ">=3.9", True),  # numbers, not text
        ("2", ">=2.0.0", True),
        ("2.0", "==2", True),
        ("2.1.0", "==2.1.0", True),
        ("1.17.1", "<=1.17.0", False),
        ("4.9.0.80", "<4.10", True),
        ("1.18.0rc1", ">1.17.0", True),
        ("7", "", True),
    ],
)
def test_a_version_fits_what_is_wanted(version, wanted, expected):
    assert fits(version, wanted) is expected


def test_what_is_wanted_is_what_the_setup_asks_for():
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    core = ast.literal_eval(re.search(r"^CORE = (\[.+\])$", text, re.MULTILINE)[1])
    assert [f"{package.names[0]}{package.versions}" for package in packages.REQUIRED] == core
    assert f'"paddlepaddle{packages.PADDLE.versions}"' in text
    assert f'python_requires="{packages.PYTHON}"' in text
    for package in packages.OPTIONAL:
        # onnx comes with paddle2onnx, which says which.
        assert package.names[0] == "onnx" or f"{package.names[0]}{package.versions}" in text


def test_a_good_environment_has_nothing_to_do():
    for installed in (GOOD, {**GOOD, **EXTRAS}):
        found = [*check_packages(installed), *check_pairs(installed)]
        assert {(finding.level, finding.advice) for finding in found} == {(OK, "")}
    gpu = {**GOOD, "paddlepaddle-gpu": "3.3.1.post126"}
    del gpu["paddlepaddle"]
    assert {finding.level for finding in check_packages(gpu)} == {OK}


def test_nothing_installed_is_an_error_for_each_package_that_is_needed():
    found = list(check_packages({}))
    missing = [finding for finding in found if finding.level == ERROR]
    assert [finding.what for finding in missing] == list(GOOD)[:1] + [item.names[0] for item in packages.REQUIRED]
    assert all(finding.advice.startswith("pip install ") for finding in missing)
    assert [str(finding) for finding in found if finding.what == "s3fs"] == [
        "ok       s3fs: not installed (optional: s3:// addresses)"
    ]


@pytest.mark.parametrize(
    ("changed", "level", "what"),
    [
        ({"paddlepaddle": "3.4.0"}, WARNING, "paddlepaddle"),
        ({"paddlepaddle": "2.6.2"}, ERROR, "paddlepaddle"),
        ({"numpy": "1.26.4"}, ERROR, "numpy"),
        ({"opencv-python-headless": "4.6.0.66"}, ERROR, "opencv-python-headless"),
        ({"onnx": "1.23.2"}, WARNING, "onnx"),
        ({"paddle2onnx": "2.0.0"}, WARNING, "paddle2onnx"),
    ],
)
def test_a_version_that_does_not_fit_is_said_with_what_to_do(changed, level, what):
    found = [finding for finding in check_packages({**GOOD, **changed}) if finding.level != OK]
    assert [(finding.level, finding.what, finding.value) for finding in found] == [(level, what, changed[what])]
    assert found[0].advice


@pytest.mark.parametrize(
    ("added", "level", "what"),
    [
        ({"paddle": "1.0.2"}, ERROR, "paddle 1.0.2"),
        ({"paddlepaddle-gpu": "3.3.1"}, ERROR, "paddlepaddle 3.3.1 with paddlepaddle-gpu 3.3.1"),
        ({"opencv-python": "5.0.0.93"}, WARNING, "opencv-python-headless 5.0.0.93 with opencv-python 5.0.0.93"),
        ({"opencv-python-headless": "4.6.0.66"}, ERROR, "opencv-python-headless 4.6.0.66 with numpy 2.4.6"),
        ({"numpy": "1.26.4"}, ERROR, "opencv-python-headless 5.0.0.93 with numpy 1.26.4"),
        ({"visualdl": "2.5.3"}, OK, "visualdl 2.5.3 with numpy 2.4.6"),
        ({"paddle2onnx": "2.1.0", "onnx": "1.23.2"}, WARNING, "paddle2onnx 2.1.0 with onnx 1.23.2"),
        ({"paddle2onnx": "2.1.0", "onnx": "1.15.0"}, WARNING, "paddle2onnx 2.1.0 with onnx 1.15.0"),
        ({"paddleclas": "2.6.0"}, WARNING, "paddleclas 2.6.0"),
    ],
)
def test_a_known_combination_is_found(added, level, what):
    (found,) = check_pairs({**GOOD, **added})
    assert (found.level, found.what) == (level, what)


def test_the_gpu_build_of_pypi_is_told_where_the_new_one_is():
    installed = {**GOOD, "paddlepaddle-gpu": "2.6.2"}
    del installed["paddlepaddle"]
    (found,) = check_pairs(installed)
    assert found.level == ERROR and "https://www.paddlepaddle.org.cn/packages/stable/" in found.advice


def test_every_rule_can_be_read():
    for rule in packages.RULES:
        assert rule.level in (OK, WARNING, ERROR) and rule.says and bool(rule.advice) == (rule.level != OK)
        assert isinstance(fits("1", rule.versions), bool) and isinstance(fits("1", rule.beside_versions), bool)


def test_names_of_installed_packages_are_written_alike():
    installed = installed_packages()
    assert {"numpy", "pyyaml", "opencv-python-headless"} <= installed.keys()
    assert all(name == name.lower() and "_" not in name for name in installed)
