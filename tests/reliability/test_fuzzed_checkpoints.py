# SPDX-License-Identifier: Apache-2.0
"""Checkpoints whose files say anything at all, their manifest being right about it: refused in one line, or used."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from small_run import Fuzz, SmallRun, put_back, seal, two_epochs

from ppcls.arch.pretrained import read_weights
from ppcls.engine.run_directory import best_epoch, stored_class_names
from ppcls.engine.stored_state import read_state
from ppcls.utils.errors import PpclsError, StorageError
from ppcls.utils.manifest import MANIFEST
from ppcls.utils.storage import verify

pytestmark = pytest.mark.promise("F11")
MAX_SECONDS = 1.0
HEADER_BYTES = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzzed")
    two_epochs(folder / "run")
    shutil.copytree(folder / "run" / "epoch_2", folder / "run" / "best_model")
    return folder / "run"


@pytest.fixture
def checkpoint(folder):
    with put_back(folder / "epoch_2"):
        yield folder / "epoch_2"


class Trials:
    """Counts what was refused, and how long the slowest took of the processor, whatever else the machine does."""

    def __init__(self):
        self.refused = self.used = 0
        self.slowest = 0.0

    def __call__(self, function, *arguments):
        """What the function gives; None where it refused, which is always a line of one of our own errors."""
        started = time.process_time()
        try:
            given = function(*arguments)
            self.used += 1
            return given
        except PpclsError as error:
            assert isinstance(error, StorageError) or error.exit_code in (2, 3)
            assert len(str(error).splitlines()) == 1, str(error)
            assert str(error).encode("utf-8")
            self.refused += 1
            return None
        finally:
            self.slowest = max(self.slowest, time.process_time() - started)

    def end(self, counted, least_refused):
        counted(self.refused + self.used)
        assert self.refused >= least_refused * (self.refused + self.used)
        assert self.slowest < MAX_SECONDS


def test_a_manifest_of_any_bytes(checkpoint, times, counted):
    fuzz, trials = Fuzz(1), Trials()
    original = (checkpoint / MANIFEST).read_bytes()
    for _ in range(times(250, 5000)):
        content = fuzz.bytes(original)
        (checkpoint / MANIFEST).write_bytes(content)
        is_used = trials(verify, checkpoint) is not None
        assert is_used == (content == original)
    trials.end(counted, 0.9)


def test_a_manifest_that_says_anything(checkpoint, times, counted):
    fuzz, trials = Fuzz(2), Trials()
    said = json.loads((checkpoint / MANIFEST).read_text())
    unsigned = {name: value for name, value in said.items() if name != "sha256"}
    for number in range(times(250, 5000)):
        # Half of them as earlier versions wrote it, without a digest of its own.
        (checkpoint / MANIFEST).write_text(fuzz.tree(said if number % 2 else unsigned))
        found = trials(verify, checkpoint)
        if found:
            assert all((checkpoint / name).is_file() and "/" not in name for name in found["files"])
    trials.end(counted, 0.5)


def test_a_state_that_says_anything(folder, checkpoint, times, counted):
    fuzz, trials, run = Fuzz(3), Trials(), SmallRun(folder)
    for name in ("epoch_2", "best_model"):
        state = json.loads((folder / name / "state.json").read_text())
        for number in range(times(100, 2500)):
            text = fuzz.tree(state) if number % 4 else fuzz.bytes(json.dumps(state).encode())
            (folder / name / "state.json").write_bytes(text if isinstance(text, bytes) else text.encode())
            seal(folder / name)
            trials(read_state, folder / name)
            trials(stored_class_names, str(folder / name))
            assert best_epoch(folder) >= 0
            if name == "epoch_2":
                used = trials(run.checkpointer.load, str(checkpoint))
                if used:
                    run.advance()
    trials.end(counted, 0.2)


def test_the_header_of_a_tensor_file_says_anything(folder, checkpoint, times, counted):
    trials, run = Trials(), SmallRun(folder)
    for seed, name in enumerate(("model", "optimizer", "ema")):
        fuzz = Fuzz(10 + seed)
        path = checkpoint / f"{name}.safetensors"
        content = path.read_bytes()
        size = HEADER_BYTES + int.from_bytes(content[:HEADER_BYTES], "little")
        header = json.loads(content[HEADER_BYTES:size])
        for number in range(times(100, 2500)):
            if number % 2:
                text = fuzz.tree(header).encode()
                path.write_bytes(len(text).to_bytes(HEADER_BYTES, "little") + text + content[size:])
            else:
                path.write_bytes(fuzz.bytes(content[:size]) + content[size:])
            seal(checkpoint)
            trials(read_weights, path)
            used = trials(run.checkpointer.load, str(checkpoint))
            if used:
                run.advance()
        path.write_bytes(content)
    trials.end(counted, 0.5)


@pytest.fixture
def peak():
    """The most memory that this process has had since it was last asked, in bytes."""
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")

    def read():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        reset.write_text("5")
        return 1024 * int(line.split()[1])

    try:
        read()
    except OSError:
        pytest.skip("this system does not tell")
    return read


def test_a_refused_file_takes_less_than_twice_its_size_of_memory(tmp_path, peak, times, counted):
    path = tmp_path / "model.safetensors"
    save_file({name: np.zeros([1 << 18], "float32") for name in "abcdefgh"}, path)
    content = path.read_bytes()
    size = HEADER_BYTES + int.from_bytes(content[:HEADER_BYTES], "little")
    header = json.loads(content[HEADER_BYTES:size])
    trials, fuzz = Trials(), Fuzz(20)
    for number in range(times(60, 2500)):
        text = fuzz.tree(header).encode() if number % 2 else fuzz.bytes(content[HEADER_BYTES:size])
        with open(path, "wb") as file:
            file.write(len(text).to_bytes(HEADER_BYTES, "little") + text)
            file.write(memoryview(content)[size:])
        peak()
        before = peak()
        if trials(read_weights, path) is None:
            assert peak() - before < 2 * len(content)
    trials.end(counted, 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "recursion|nested"),
        ('{"a": 1, "a": 2}', "the key 'a' is there twice"),
        (f'{{"epoch": {"9" * 5000}}}', "the number 9999999999999999999... is too large"),
        ('{"epoch": "\\ud800"}', "surrogates not allowed"),
        ("nothing", "Expecting value"),
        ("", "Expecting value"),
        ("[]", "it is no mapping"),
        ("{}", "epoch is missing"),
        ('{"epoch": 1.0}', "epoch: expected a whole number from 0 on; got 1.0"),
        ('{"epoch": true}', "epoch: expected a whole number from 0 on; got True"),
        ('{"epoch": 1, "step": -1}', "step: expected a whole number from 0 on; got -1"),
        ('{"epoch": 1, "step": 1, "best": {"value": NaN}}', "value: expected a number that is finite; got nan"),
        ('{"epoch": 1, "step": 1, "sums": [{"names": []}]}', "sums: expected sums of an epoch"),
        ('{"epoch": 1, "step": 1, "precision": {"scale": 0, "incr_count": 0, "decr_count": 0}}', "the loss scale is 0"),
        ('{"epoch": 1, "step": 1, "updates_of_epoch": 5, "updates_per_epoch": 4}', "5 updates of epoch 1 are done"),
    ],
)
def test_what_is_wrong_with_a_state_is_said(tmp_path, text, message):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(StorageError, match=message) as caught:
        read_state(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/state.json: ")
