# SPDX-License-Identifier: Apache-2.0
"""Looks at a machine, on values."""

import resource

import pytest

from ppcls.utils import doctor
from ppcls.utils.doctor import GIB, size
from ppcls.utils.packages import ERROR, OK, WARNING, Finding

MIB = 1 << 20


def test_a_finding_is_one_line():
    assert str(Finding(ERROR, "a", "b", "c")) == "error    a: b; c"
    assert str(Finding(WARNING, "a", "b")) == "warning  a: b"
    assert str(Finding(OK, "a", "b")) == "ok       a: b"


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (1000, "1000 B"),
        (64 * MIB, "64 MiB"),
        (1.5 * GIB, "1.5 GiB"),
        (1010 * GIB, "1010 GiB"),
        (2048 * GIB, "2 TiB"),
    ],
)
def test_sizes_are_in_powers_of_1024(num_bytes, text):
    assert size(num_bytes) == text


@pytest.mark.parametrize(("version", "level"), [("3.8.20", ERROR), ("3.9.1", OK), ("3.13.2", OK), ("3.14.0", ERROR)])
def test_python(version, level):
    assert doctor.check_python(version).level == level


@pytest.mark.parametrize(
    ("name", "libc", "level"),
    [("Linux 6 x86_64", "glibc 2.36", OK), ("Linux 6 x86_64", "", WARNING), ("Darwin 24 arm64", "", WARNING)],
)
def test_system(name, libc, level):
    assert doctor.check_system(name, libc).level == level


@pytest.mark.parametrize(
    ("devices", "is_gpu_build", "has_nvidia", "says"),
    [
        (["cpu"], False, False, ""),
        (["cpu", "gpu:0"], True, True, ""),
        (["cpu"], True, True, "finds no GPU"),
        (["cpu"], False, True, "is the CPU build"),
        (["cpu", "npu:0"], False, False, ""),
    ],
)
def test_devices(devices, is_gpu_build, has_nvidia, says):
    found = doctor.check_devices(devices, is_gpu_build, has_nvidia)
    assert found.level == (WARNING if says else OK)
    assert says in found.advice and found.value == devices


@pytest.mark.parametrize(
    ("found", "level"),
    [
        (doctor.check_memory(None), OK),
        (doctor.check_memory(8 * GIB), OK),
        (doctor.check_memory(GIB), WARNING),
        (doctor.check_shared_memory(64 * MIB, 64 * MIB), WARNING),
        (doctor.check_shared_memory(7 * GIB, 8 * GIB), OK),
        (doctor.check_open_files(256), WARNING),
        (doctor.check_open_files(1024), OK),
        (doctor.check_open_files(resource.RLIM_INFINITY), OK),
        (doctor.check_space("here", 20 * GIB, 100 * GIB, True, "elsewhere"), OK),
        (doctor.check_space("here", MIB, 100 * GIB, True, "elsewhere"), WARNING),
        (doctor.check_space("here", 20 * GIB, 100 * GIB, False, "elsewhere"), WARNING),
    ],
)
def test_figures(found, level):
    assert found.level == level
    assert bool(found.advice) == (level != OK)


def test_a_self_test_that_fails_is_one_line_with_what_to_do():
    def fail():
        raise OSError("a page\nof text")

    assert doctor.check_that("a", lambda: "fine", "b") == Finding(OK, "a", "fine")
    assert doctor.check_that("a", fail, "b") == Finding(ERROR, "a", "OSError: a page", "b")


def test_directories_that_are_not_there_yet_are_measured_where_they_would_be_made(tmp_path):
    found = {finding.what: finding for finding in doctor.machine_findings({}, tmp_path / "not" / "yet")}
    assert found["cache directory"].value > 0
    assert found["cores"].value >= 1
