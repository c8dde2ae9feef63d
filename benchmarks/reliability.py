# SPDX-License-Identifier: Apache-2.0
"""How often each reliability promise was put to the test, and how often it held; ``--full`` writes RELIABILITY.md.

The tests that hold a promise are marked with its number (``tests/toys/promises.py``). This runs them, each in its
ordinary number of trials, or with ``--full`` in a larger one, which takes an hour or two on two cores.

    python benchmarks/reliability.py [--full] [--only F01 F02] [--killed-run FILE] [--output RELIABILITY.md]
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "toys")]

from promises import PROMISES  # noqa: E402

from ppcls.utils.machine import available_memory, usable_cores  # noqa: E402


def run_tests(full: bool, only: list[str]) -> dict:
    """Run the marked tests and return what the file of counts says; the tests' own output goes to the terminal."""
    from importlib.metadata import version

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "counts.json"
        command = [sys.executable, "-m", "pytest", "-m", "promise", "--promises-file", str(file), "-rf"]
        subprocess.run([*command, *(["--full"] if full else []), *tests_of(only)], cwd=ROOT, check=False)
        counts = json.loads(file.read_text(encoding="utf-8"))
    return {**counts, "full": full, "packages": {name: version(name) for name in ("paddlepaddle", "numpy")}}


def tests_of(only: list[str]) -> list[str]:
    """The files whose text names one of these promises; pytest has no way to choose by a marker's argument."""
    if not only:
        return []
    texts = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("test_*.py"))}
    return [str(path) for path, text in texts.items() if any(f'promise("{number}")' in text for number in only)]


def page(told: dict, killed_run: dict | None) -> str:
    """RELIABILITY.md."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    kind = "the full counts" if told["full"] else "the counts of the ordinary test suite"
    machine = f"{usable_cores()} cores, {available_memory() / 2**30:.0f} GiB free, {platform.system()}, no GPU used"
    packages = ", ".join(f"{name} {version}" for name, version in told["packages"].items())
    lines = [
        "# Reliability: what was promised, and what was measured",
        "",
        f"Written by `python benchmarks/reliability.py{' --full' if told['full'] else ''}`: {kind}, commit "
        f"{commit.strip()}, {time.strftime('%Y-%m-%d', time.gmtime(told['time']))}; {machine}; "
        f"Python {platform.python_version()}, {packages}.",
        "",
        "| | Promise | Held | Not held | Not run | Seconds |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for number, result in told["promises"].items():
        cells = [PROMISES[number], result["passed"], len(result["failed"]), len(result["skipped"])]
        lines.append(f"| {number} | " + " | ".join(map(str, cells)) + f" | {result['seconds']:.0f} |")
    for heading, key in (("Not held", "failed"), ("Not run (skipped on this machine)", "skipped")):
        tests = sorted({test for result in told["promises"].values() for test in result[key]})
        if tests:
            lines += ["", f"## {heading}", "", *(f"* `{test}`" for test in tests)]
    if killed_run:
        lines += ["", "## A long run, killed", "", killed_run["text"]]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the full counts")
    parser.add_argument("--only", nargs="+", default=[], metavar="F", choices=PROMISES, help="only tests of these")
    parser.add_argument("--killed-run", metavar="FILE", help="add what benchmarks/killed_run.py wrote with --json")
    parser.add_argument("--output", metavar="FILE", help="write the page there, instead of to the terminal")
    arguments = parser.parse_args()
    told = run_tests(arguments.full, arguments.only)
    killed_run = json.loads(Path(arguments.killed_run).read_text("utf-8")) if arguments.killed_run else None
    text = page(told, killed_run)
    if arguments.output:
        Path(arguments.output).write_text(text, encoding="utf-8")
    else:
        print(text)
    failed = [number for number, result in told["promises"].items() if result["failed"]]
    if failed:
        sys.exit(f"not held: {', '.join(failed)}")


if __name__ == "__main__":
    main()
