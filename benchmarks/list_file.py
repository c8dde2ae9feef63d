# SPDX-License-Identifier: Apache-2.0
"""What a list file of ten million lines costs: seconds to open it over those of a plain loop, and memory.

Both run in fresh processes. The plain loop keeps a Python string and a number for each line, as is usual. Then four
workers are forked from either, and each reads the paths of 1000 images drawn at random.

    python benchmarks/list_file.py [--lines 10000000] [--workers 4]
"""

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), "..")))

PATHS_READ = 1000


def write_list(path: str, num_lines: int) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for head in range(0, num_lines, 100_000):
            numbers = range(head, min(head + 100_000, num_lines))
            file.writelines(f"train/n{n % 1000:08d}/n{n % 1000:08d}_{n}.JPEG {n % 1000}\n" for n in numbers)


def open_plain(path: str) -> list:
    samples = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            name, label = line.rsplit(None, 1)
            samples.append((name, int(label)))
    return samples


def open_ppcls(path: str):
    from ppcls.data.list_file import ImageNetDataset

    return ImageNetDataset("", path)


def memory(pid: int, entry: str) -> int:
    """MiB: ``Pss`` counts what several processes share once in all, ``Private_Dirty`` is a process's own."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith(f"{entry}:")) // 1024


def read_paths(path_of, seed: int, num_lines: int, has_read, may_end) -> None:
    import numpy as np

    for index in np.random.default_rng(seed).integers(0, num_lines, PATHS_READ).tolist():
        path_of(index)
    has_read.release()
    may_end.wait()


def measure(kind: str, path: str, num_lines: int, num_workers: int) -> None:
    """Print seconds and MiB as JSON; runs in a process of its own."""
    import ppcls.data.all  # noqa: F401  (what importing costs is no part of it)

    before = memory(os.getpid(), "Pss")
    started = time.perf_counter()
    dataset = open_plain(path) if kind == "plain" else open_ppcls(path)
    seconds = time.perf_counter() - started
    path_of = (lambda index: dataset[index][0]) if kind == "plain" else dataset.path
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    fork = multiprocessing.get_context("fork")
    has_read, may_end = fork.Semaphore(0), fork.Event()
    workers = [
        fork.Process(target=read_paths, args=(path_of, seed, num_lines, has_read, may_end))
        for seed in range(num_workers)
    ]
    for worker in workers:
        worker.start()
    for _ in workers:
        has_read.acquire()
    in_all = memory(os.getpid(), "Pss") + sum(memory(worker.pid, "Pss") for worker in workers)
    own = [memory(worker.pid, "Private_Dirty") for worker in workers]
    may_end.set()
    for worker in workers:
        worker.join()
    print(json.dumps({"seconds": seconds, "before": before, "peak": peak, "in_all": in_all, "own": max(own)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=10_000_000, help="lines of the list")
    parser.add_argument("--workers", type=int, default=4, help="forked processes")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(*arguments.measure, arguments.lines, arguments.workers)
        return
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "list.txt")
        write_list(path, arguments.lines)
        print(f"{arguments.lines:,} lines, {os.path.getsize(path) >> 20} MiB; {arguments.workers} forked workers")
        print(f"{'':12}{'open':>9}{'peak of':>13}{'all processes':>16}{'own memory':>13}")
        print(f"{'':12}{'':>9}{'the parent':>13}{'together':>16}{'of a worker':>13}")
        found = {}
        for kind in ("ppcls", "plain"):
            options = ["--lines", str(arguments.lines), "--workers", str(arguments.workers)]
            command = [sys.executable, __file__, *options, "--measure", kind, path]
            found[kind] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            seconds, peak, in_all, own = (found[kind][key] for key in ("seconds", "peak", "in_all", "own"))
            print(f"{kind:12}{seconds:7.2f} s{peak:9} MiB{in_all:12} MiB{own:9} MiB")
    print(f"before it is opened, a process with everything imported has {found['ppcls']['before']} MiB")
    print(f"plain / ppcls: {found['plain']['seconds'] / found['ppcls']['seconds']:.1f} in time, ", end="")
    print(f"{found['plain']['in_all'] / found['ppcls']['in_all']:.1f} in memory")


if __name__ == "__main__":
    main()
