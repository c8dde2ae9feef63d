# SPDX-License-Identifier: Apache-2.0
"""What a process may use, as Linux says it: limits of containers of both kinds."""

import os

import pytest

from ppcls.utils.machine import available_memory, usable_cores

MEMINFO = "MemTotal:       65536 kB\nMemFree:         1024 kB\nMemAvailable:   32768 kB\n"
UNLIMITED = str(2**63 - 4096)


@pytest.fixture
def machine(tmp_path):
    """Files of ``/proc`` and ``/sys`` under another root."""

    def make(groups, files):
        for name, text in {"proc/meminfo": MEMINFO, "proc/self/cgroup": groups, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return make


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)


V2 = "0::/a/b\n"
V1 = "5:memory:/a\n4:cpu,cpuacct:/a\n1:name=systemd:/a\n"
V1_IN_A_CONTAINER = "5:memory:/docker/123\n4:cpu,cpuacct:/docker/123\n"
TOP = "sys/fs/cgroup"


@pytest.mark.parametrize(
    "groups, files, cores",
    [
        (V2, {}, 16),
        (V2, {f"{TOP}/a/b/cpu.max": "max 100000\n"}, 16),
        (V2, {f"{TOP}/a/b/cpu.max": "250000 100000\n"}, 2),
        (V2, {f"{TOP}/a/b/cpu.max": "max 100000\n", f"{TOP}/a/cpu.max": "400000 100000\n"}, 4),
        (V2, {f"{TOP}/a/b/cpu.max": "50000 100000\n"}, 1),
        (V2, {f"{TOP}/cpu.max": "300000 100000\n"}, 3),
        (V1, {f"{TOP}/cpu/a/cpu.cfs_quota_us": "-1\n", f"{TOP}/cpu/a/cpu.cfs_period_us": "100000\n"}, 16),
        (V1, {f"{TOP}/cpu/a/cpu.cfs_quota_us": "600000\n", f"{TOP}/cpu/a/cpu.cfs_period_us": "100000\n"}, 6),
        (
            V1_IN_A_CONTAINER,
            {f"{TOP}/cpu/cpu.cfs_quota_us": "200000\n", f"{TOP}/cpu/cpu.cfs_period_us": "100000\n"},
            2,
        ),
        ("", {}, 16),
    ],
)
def test_cores_are_those_that_the_container_may_use(machine, groups, files, cores):
    assert usable_cores(machine(groups, files)) == cores


@pytest.mark.parametrize(
    "groups, files, kilobytes",
    [
        (V2, {}, 32768),
        (V2, {f"{TOP}/a/b/memory.max": "max\n", f"{TOP}/a/b/memory.current": "4096\n"}, 32768),
        (V2, {f"{TOP}/a/b/memory.max": f"{8192 * 1024}\n", f"{TOP}/a/b/memory.current": f"{2048 * 1024}\n"}, 6144),
        (
            V2,
            {
                f"{TOP}/a/memory.max": f"{8192 * 1024}\n",
                f"{TOP}/a/memory.current": f"{2048 * 1024}\n",
                f"{TOP}/a/memory.stat": f"anon 5\ninactive_file {1024 * 1024}\n",
            },
            7168,
        ),
        (V2, {f"{TOP}/a/b/memory.max": "4096\n", f"{TOP}/a/b/memory.current": "8192\n"}, 0),
        (
            V1,
            {
                f"{TOP}/memory/a/memory.limit_in_bytes": f"{4096 * 1024}\n",
                f"{TOP}/memory/a/memory.usage_in_bytes": f"{1024 * 1024}\n",
                f"{TOP}/memory/memory.limit_in_bytes": UNLIMITED,
                f"{TOP}/memory/memory.usage_in_bytes": "77\n",
            },
            3072,
        ),
        (
            V1_IN_A_CONTAINER,
            {
                f"{TOP}/memory/memory.limit_in_bytes": f"{4096 * 1024}\n",
                f"{TOP}/memory/memory.usage_in_bytes": "0\n",
                f"{TOP}/memory/memory.stat": "total_inactive_file 0\n",
            },
            4096,
        ),
    ],
)
def test_memory_is_what_the_machine_or_the_container_has_left(machine, groups, files, kilobytes):
    assert available_memory(machine(groups, files)) == kilobytes * 1024


def test_a_system_that_says_nothing_is_taken_as_it_is(tmp_path):
    assert usable_cores(tmp_path) == 16
    assert available_memory(tmp_path) is None


def test_this_machine_has_cores():
    assert usable_cores() >= 1
