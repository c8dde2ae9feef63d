# SPDX-License-Identifier: Apache-2.0
"""The reliability promises, and the part of pytest that counts how often each was put to the test.

A test says which promise it holds with ``@pytest.mark.promise("F01")``; each of its cases counts one, or what it says
with the fixture ``counted``. The fixture ``times`` gives the number of trials: the smaller in the ordinary suite,
the larger with ``--full``. ``--promises-file`` names the file that the counts are written to.
"""

import json
import time
from pathlib import Path

import pytest

PROMISES = {
    "F01": "kill -9 at a random moment: the same command goes on, to the bit",
    "F02": "kill -9 at every step of saving, pruning, resuming: a valid checkpoint, an interval and a save old at most",
    "F03": "another number of processes: the same order of images, the same losses",
    "F04": "another number of workers: the same batches",
    "F05": "the same seed gives the same run, another seed another",
    "F06": "SIGTERM, SIGINT and SIGUSR1 save at the next update; a second signal ends at once",
    "F07": "a checkpoint meets a changed configuration: refused, or told what differs, as the table says",
    "F08": "asked to continue where there is nothing, or another run: said so",
    "F09": "the disk is full: the checkpoint before stays whole, and the next one is saved when there is space",
    "F10": "damaged checkpoints: each found, none loaded",
    "F11": "fuzzed manifests and headers: refused in one line",
    "F12": "two runs, one output directory: the second is refused; a dead run holds nothing",
    "F13": "an output directory that is read-only, or vanishes",
    "F14": "strange image files: the known answer, the same for training, evaluation, inference and deployment",
    "F15": "decompression bombs: refused by their header",
    "F16": "missing files: all found before training",
    "F17": "faulty lists and labels: refused with file and line",
    "F18": "a worker dies or hangs: replaced to the bit, or named",
    "F19": "little or no shared memory: trained all the same",
    "F20": "no image can be read: ended, not looped",
    "F21": "not a number in input, loss, gradient or statistics: caught at that step by all processes",
    "F22": "out of memory: smaller pieces, the same batch, the same result",
    "F23": "a number format or device that is not there: refused before data is read",
    "F24": "one process fails: all end, its error is the message, no process is left",
    "F25": "one process is killed under the supervisor: all start again from the last checkpoint, to the bit",
    "F26": "one process stalls: found, with the stacks of all",
    "F27": "a data set that the processes do not divide: evaluation counts every image once",
    "F28": "a port that is taken, two jobs at once: no cross-talk",
    "F29": "hostile YAML: nothing executed, refused",
    "F30": "hostile pickles: nothing executed",
    "F31": "hostile archives: nothing outside, nothing without bounds",
    "F32": "tampered bundles and packs: refused",
    "F33": "secrets of the environment: in no file",
    "F34": "an exported model answers as the trained one, or is not published",
    "F35": "kill -9 while exporting: the bundle before, or the new one",
    "F36": "ten times the load: the excess refused at once, the rest answered",
    "F37": "hostile clients: refused, never a crash",
    "F38": "SIGTERM under load: accepted requests are answered",
    "F39": "long use: memory, files and threads do not grow",
    "F40": "a misspelt key: refused, the right one suggested",
}


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="the full counts of the reliability promises, for hours")
    parser.addoption("--promises-file", help="write what was counted for each promise there, as JSON")


def pytest_configure(config):
    config.addinivalue_line("markers", "promise(number): holds a reliability promise, such as F01")
    config.pluginmanager.register(_Count(config.getoption("--promises-file")), "promises-count")


@pytest.fixture
def times(request):
    """The number of trials: ``times(ordinary, full)``."""
    return lambda ordinary, full: full if request.config.getoption("--full") else ordinary


@pytest.fixture
def counted(record_property):
    """``counted(n)``: this test has put the promise to the test n times, not once."""
    return lambda number: record_property("counted", number)


class _Count:
    def __init__(self, file):
        self.file = file
        self.numbers = {}
        self.results = {}

    def pytest_collection_modifyitems(self, items):
        for item in items:
            numbers = [mark.args[0] for mark in item.iter_markers("promise")]
            unknown = sorted(set(numbers) - set(PROMISES))
            if unknown:
                raise pytest.UsageError(f"{item.nodeid}: there is no promise {unknown[0]}")
            self.numbers[item.nodeid] = numbers

    def pytest_runtest_logreport(self, report):
        is_result = report.when == "call" or (report.when == "setup" and not report.passed) or report.failed
        if not is_result:
            return
        count = sum(value for name, value in report.user_properties if name == "counted") or 1
        for number in self.numbers.get(report.nodeid, ()):
            result = self.results.setdefault(number, {"passed": 0, "failed": [], "skipped": [], "seconds": 0.0})
            result["seconds"] += report.duration
            if report.passed:
                result["passed"] += count
            else:
                result[report.outcome].append(report.nodeid)

    def pytest_sessionfinish(self):
        if self.file:
            told = {"time": time.time(), "promises": dict(sorted(self.results.items()))}
            Path(self.file).write_text(json.dumps(told, indent=1), encoding="utf-8")
