# SPDX-License-Identifier: Apache-2.0
"""How often each reliability promise was put to the test, and how often it held; ``--full`` writes RELIABILITY.md.

The tests that hold a promise are marked with its number (``tests/toys/promises.py``). This runs them, each in its
ordinary number of trials, or with ``--full`` in a larger one, which takes an hour or two on two cores.

    python benchmarks/reliability.py [--full] [--only F01 F02] [--counts FILE] [--killed-run FILE] [--output FILE]

With ``--counts`` several runs, each with ``--only`` some promises, make one page.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "toys")]

from promises import PROMISES  # noqa: E402

from ppcls.utils.machine import available_memory, usable_cores  # noqa: E402


def run_tests(full: bool, only: list[str]) -> dict[str, dict]:
    """Run the marked tests and return the results by promise; the tests' own output goes to the terminal."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "counts.json"
        command = [sys.executable, "-m", "pytest", "-m", "promise", "--promises-file", str(file), "-rf"]
        subprocess.run([*command, *(["--full"] if full else []), *tests_of(only)], cwd=ROOT, check=False)
        counts = json.loads(file.read_text(encoding="utf-8"))
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    date = time.strftime("%Y-%m-%d", time.gmtime(counts["time"]))
    where = {"commit": head.stdout.strip(), "date": date, "full": full}
    # A file has tests of more promises than one, of which only a part has run when some were chosen.
    return {number: {**result, **where} for number, result in counts["promises"].items() if not only or number in only}


def tests_of(only: list[str]) -> list[str]:
    """The files whose text names one of these promises; pytest has no way to choose by a marker's argument."""
    if not only:
        return []
    texts = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("test_*.py"))}
    return [str(path) for path, text in texts.items() if any(f'promise("{number}")' in text for number in only)]


def page(results: dict[str, dict], killed_run: dict | None) -> str:
    """RELIABILITY.md."""
    machine = f"{usable_cores()} cores, {available_memory() / 2**30:.0f} GiB free, {platform.system()}, no GPU used"
    packages = ", ".join(f"{name} {version(name)}" for name in ("paddlepaddle", "numpy"))
    lines = [
        "# Reliability: what was promised, and what was measured",
        "",
        "Written by `python benchmarks/reliability.py --full`, which runs the tests of each promise in their full "
        "number of trials; a row may say that its number is that of the ordinary test suite. "
        f"{machine}; Python {platform.python_version()}, {packages}. What the promises mean: "
        "[docs/reliability.md](docs/reliability.md).",
        "",
        "| | Promise | Held | Not held | Not run | Seconds | Commit, date |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for number, result in sorted(results.items()):
        counts = [result["passed"], len(result["failed"]), len(result["skipped"]), f"{result['seconds']:.0f}"]
        where = f"{result['commit']}, {result['date']}{'' if result['full'] else ', ordinary suite'}"
        lines.append(f"| {number} | {PROMISES[number]} | " + " | ".join(map(str, counts)) + f" | {where} |")
    for heading, key in (("Not held", "failed"), ("Not run (skipped on this machine)", "skipped")):
        tests = sorted({test for result in results.values() for test in result[key]})
        if tests:
            lines += ["", f"## {heading}", "", *(f"* `{test}`" for test in tests)]
    if killed_run:
        lines += ["", "## A long run, killed", "", killed_run["text"]]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the full counts")
    parser.add_argument("--only", nargs="+", default=[], metavar="F", choices=PROMISES, help="only tests of these")
    parser.add_argument("--counts", metavar="FILE", help="keep the results there, and take others from there")
    parser.add_argument("--killed-run", metavar="FILE", help="add what benchmarks/killed_run.py wrote with --json")
    parser.add_argument("--output", metavar="FILE", help="write the page there, instead of to the terminal")
    arguments = parser.parse_args()
    counts = Path(arguments.counts) if arguments.counts else None
    measured = run_tests(arguments.full, arguments.only)
    results = json.loads(counts.read_text("utf-8")) if counts and counts.exists() else {}
    results.update(measured)
    if counts:
        counts.write_text(json.dumps(results, indent=1), encoding="utf-8")
    killed_run = json.loads(Path(arguments.killed_run).read_text("utf-8")) if arguments.killed_run else None
    text = page(results, killed_run)
    if arguments.output:
        Path(arguments.output).write_text(text, encoding="utf-8")
    else:
        print(text)
    failed = [number for number, result in results.items() if result["failed"]]
    if failed:
        sys.exit(f"not held: {', '.join(sorted(failed))}")


if __name__ == "__main__":
    main()
