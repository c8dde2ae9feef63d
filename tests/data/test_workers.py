# SPDX-License-Identifier: Apache-2.0
"""Worker processes: they may die of anything, and the batches stay what they are."""

from __future__ import annotations

import ctypes
import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from multiprocessing import connection
from pathlib import Path

import numpy as np
import pytest

from ppcls.data import DistributedBatchSampler, Loader, deaths, workers
from ppcls.utils.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
NUM_SAMPLES = 41
SEED = 11
VICTIM = 17
"""The sample at which something happens."""


class Pixels:
    """Small images that follow from index and random numbers; ``happens`` is called before one of them is made.

    Args:
        happens: what happens.
        marks: a folder in which it leaves a mark for every time.
        times: how often it happens.
    """

    def __init__(self, happens=None, marks=None, times=1) -> None:
        self.happens = happens
        self.marks = marks
        self.times = times

    def __len__(self) -> int:
        return NUM_SAMPLES

    def where(self, index):
        return f"list.txt:{index + 1}"

    def named(self, index, problem):
        return f"{index}.png: {problem}; listed in {self.where(index)}"

    def sample(self, index, rng):
        if index == VICTIM and self.happens:
            marks = sorted(self.marks.iterdir())
            if len(marks) < self.times:
                (self.marks / f"{len(marks)}_{os.getpid()}").touch()
                self.happens()
        noise = np.frombuffer(hashlib.sha256(f"{index} {rng.random()}".encode()).digest(), np.uint8)
        return np.resize(noise, [3, 8, 8]), index % 5


def make_loader(dataset, batch_size=4, **options) -> Loader:
    sampler = DistributedBatchSampler(batch_size, shuffle=True, num_samples=len(dataset), seed=SEED)
    return Loader(dataset, sampler, seed=SEED, **options)


def hashes_of(loader, epochs=(1,)) -> list[str]:
    hashes = []
    for epoch in epochs:
        loader.set_epoch(epoch)
        hashes += [
            hashlib.sha256(image.numpy().tobytes() + label.numpy().tobytes()).hexdigest() for image, label in loader
        ]
    return hashes


@pytest.fixture(scope="module")
def expected():
    """The batches of three epochs, made in this process."""
    return hashes_of(make_loader(Pixels()), (1, 2, 3))


def is_alive(pid) -> bool:
    """Whether a process still runs; one that has ended may stay in the list until somebody asks for its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


# F04: neither the number of workers nor how far they work ahead matters.


@pytest.mark.promise("F04")
@pytest.mark.parametrize("prefetch", [1, 8])
@pytest.mark.parametrize("num_workers", [0, 1, 2, 4])
def test_workers_and_prefetch_change_no_pixel_in_three_epochs(expected, num_workers, prefetch):
    loader = make_loader(Pixels(), num_workers=num_workers, prefetch_factor=prefetch)
    assert hashes_of(loader, (1, 2, 3)) == expected
    assert len(set(expected)) == 33
    loader.close()


# F18: death.


def segfault():
    ctypes.string_at(8)


def die_by_sigkill():
    os.kill(os.getpid(), signal.SIGKILL)


def sleep_for_ever():
    while True:
        time.sleep(600)


def sleep_without_python():
    """As a library does that hangs: no Python code runs any more."""
    ctypes.PyDLL(None).sleep(600)


def run_out_of_memory():
    resource.setrlimit(resource.RLIMIT_AS, (2**20, resource.RLIM_INFINITY))
    np.ones(2**26)


def leave():
    raise SystemExit(3)


DEATHS = [
    (die_by_sigkill, "was ended by SIGKILL"),
    (os.abort, "was ended by SIGABRT"),
    (segfault, "was ended by SIGSEGV"),
    (run_out_of_memory, "ran out of memory"),
    (leave, "exited with code 3"),
]
HANGS = [sleep_for_ever, sleep_without_python]


@pytest.mark.promise("F18")
@pytest.mark.parametrize("num_workers, use_shared_memory", [(1, True), (2, False), (3, True)])
@pytest.mark.parametrize("happens, cause", DEATHS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_dead_worker_is_named_and_replaced_and_no_pixel_changes(
    expected, tmp_path, caplog, happens, cause, num_workers, use_shared_memory
):
    dataset = Pixels(happens, tmp_path)
    loader = make_loader(dataset, num_workers=num_workers, use_shared_memory=use_shared_memory)
    assert hashes_of(loader, (1, 2, 3)) == expected
    pid = int(next(tmp_path.iterdir()).name.split("_")[1])
    assert [record.message for record in caplog.records] == [
        f"17.png: worker process {pid} {cause}{OUT_OF_MEMORY if cause.endswith('KILL') else ''} while it made this "
        "image; listed in list.txt:18; another process takes its place"
    ]
    pids = loader.pids
    loader.close()
    assert not any(map(is_alive, [pid, *pids]))


OUT_OF_MEMORY = " (as the system does when memory runs out)"


@pytest.mark.promise("F18")
@pytest.mark.parametrize("happens", HANGS)
def test_a_worker_that_hangs_is_named_and_replaced_and_no_pixel_changes(expected, tmp_path, caplog, happens):
    loader = make_loader(Pixels(happens, tmp_path), num_workers=2, timeout=2)
    assert hashes_of(loader) == expected[:11]
    pid = int(next(tmp_path.iterdir()).name.split("_")[1])
    assert (
        f"17.png: worker process {pid} was ended by SIGKILL, as it had made no progress for 2 seconds "
        "(loader.timeout), while it made this image; listed in list.txt:18; another process takes its place"
    ) in caplog.messages
    assert not is_alive(pid)
    loader.close()


@pytest.mark.promise("F18")
@pytest.mark.parametrize("happens, cause", DEATHS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_sample_that_ends_two_workers_ends_the_run(tmp_path, happens, cause):
    loader = make_loader(Pixels(happens, tmp_path, times=99), num_workers=2)
    with pytest.raises(DataError) as caught:
        hashes_of(loader)
    assert len(list(tmp_path.iterdir())) == 2
    pid = int(max(tmp_path.iterdir()).name.split("_")[1])
    message = str(caught.value)
    assert message.startswith(f"17.png: worker process {pid} {cause}")
    assert message.endswith("as did another before it; listed in list.txt:18; remove it, or set on_bad_sample to skip")
    assert loader.pids == []


@pytest.mark.promise("F18")
def test_a_sample_that_hangs_twice_ends_the_run(tmp_path):
    loader = make_loader(Pixels(sleep_for_ever, tmp_path, times=99), num_workers=2, timeout=2)
    with pytest.raises(DataError, match="no progress for 2 seconds .*, while it made this image, as did another"):
        hashes_of(loader)


@pytest.mark.promise("F18")
def test_a_worker_that_is_killed_between_two_epochs_is_replaced(expected, caplog):
    loader = make_loader(Pixels(), num_workers=2)
    assert hashes_of(loader, (1,)) == expected[:11]
    kill(loader, 0)
    kill(loader, 1)
    assert hashes_of(loader, (2, 3)) == expected[11:]
    assert len(caplog.messages) == 2
    assert "was ended by SIGKILL (as the system does when memory runs out) between two images" in caplog.text
    loader.close()


@pytest.mark.promise("F18")
def test_too_many_deaths_end_the_run_though_no_sample_is_to_blame(expected, monkeypatch):
    monkeypatch.setattr(deaths, "MAX_DEATHS", 3)
    loader = make_loader(Pixels(), num_workers=1)
    for _ in range(3):
        assert hashes_of(loader) == expected[:11]
        kill(loader, 0)
    assert hashes_of(loader) == expected[:11]
    kill(loader, 0)
    with pytest.raises(DataError, match="4 worker processes have died, the last: worker process .* between two images"):
        hashes_of(loader)
    assert hashes_of(loader) == expected[:11]  # with a new pool
    loader.close()


def kill(loader, number):
    """Kill a worker, and wait until it is dead."""
    worker = loader._pool._workers[number]
    os.kill(worker.process.pid, signal.SIGKILL)
    assert connection.wait([worker.process.sentinel], 300)


ORPHANS = """
import os, sys, time
sys.path.insert(0, "tests/data")
from test_workers import Pixels, make_loader, sleep_for_ever, sleep_without_python
from pathlib import Path

loader = make_loader(Pixels(globals()[sys.argv[1]] if sys.argv[1] else None, Path(sys.argv[2])), num_workers=3)
batches = iter(loader)
next(batches)
while sys.argv[1] and not os.listdir(sys.argv[2]):
    time.sleep(0.05)
print(*loader.pids, flush=True)
if sys.argv[3] == "kill":
    os.kill(os.getpid(), 9)
if sys.argv[3] == "raise":
    raise ValueError
"""


@pytest.mark.promise("F18")
@pytest.mark.parametrize("happens", ["", "sleep_for_ever", "sleep_without_python"])
@pytest.mark.parametrize("end", ["kill", "raise", "return"])
def test_no_worker_outlives_its_parent(tmp_path, happens, end):
    command = [sys.executable, "-c", ORPHANS, happens, str(tmp_path), end]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == {"kill": -9, "raise": 1, "return": 0}[end], done.stderr
    pids = list(map(int, done.stdout.split()))
    assert len(pids) == 3
    # What was read ends when the last process that can write to it has closed it: only the end of its end is left.
    deadline = time.monotonic() + 300
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


CTRL_C = """
import os, signal, sys
sys.path.insert(0, "tests/data")
from test_workers import Pixels, hashes_of, make_loader

signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background is started to ignore it
loader = make_loader(Pixels(), num_workers=2)
expected = hashes_of(loader)
pids = loader.pids
try:
    os.killpg(0, signal.SIGINT)
    signal.pause()
except KeyboardInterrupt:
    pass
assert hashes_of(loader) == expected
assert loader.pids == pids
print("done")
"""


def test_ctrl_c_is_for_the_parent_to_decide():
    done = subprocess.run(
        [sys.executable, "-c", CTRL_C],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        start_new_session=True,
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


# F19: shared memory.

SHM = """
import sys
sys.path.insert(0, "tests/data")
from test_workers import Pixels, hashes_of, make_loader

loader = make_loader(Pixels(), num_workers=2)
print("\\n".join(hashes_of(loader, (1, 2, 3))))
assert loader._pool._free, "no shared memory"
"""


@pytest.mark.promise("F19")
@pytest.mark.parametrize("fill", ["", "; ! head -c 2M /dev/zero > /dev/shm/full"])
def test_a_tiny_or_full_dev_shm_does_not_matter(expected, fill):
    mount = f"mount -t tmpfs -o size=1m tmpfs /dev/shm{fill}"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    command = ["unshare", "-m", "sh", "-c", f'{mount}; exec "$0" -c "$1"', sys.executable, SHM]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == expected


@pytest.mark.promise("F19")
def test_with_little_memory_there_is_one_warning_and_no_pixel_changes(expected, monkeypatch, caplog):
    slot = 4 * (3 * 8 * 8 + 8)
    seen = {}
    for room in (0, 1, 2, 3, 4, 100):
        caplog.clear()
        available = 2 * 1024 * room  # half of it is for batches; a slot is rounded up to less than 1024 bytes
        monkeypatch.setattr(workers, "available_memory", lambda available=available: available)
        assert slot < 1024
        loader = make_loader(Pixels(), num_workers=2, prefetch_factor=8)
        assert hashes_of(loader, (1, 2, 3)) == expected
        seen[room] = list(caplog.messages)
        loader.close()
    assert [len(messages) for messages in seen.values()] == [1, 1, 1, 1, 1, 0]
    assert "they go through pipes, fewer ahead; lower loader.num_workers" in seen[0][0]
    assert "so fewer are made ahead" in seen[4][0]


LIMITED = """
import resource, sys
sys.path.insert(0, "tests/data")
from test_workers import Pixels, hashes_of, make_loader

loader = make_loader(Pixels(), num_workers=2)
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
print("\\n".join(hashes_of(loader, (1, 2, 3))))
"""


@pytest.mark.promise("F19")
def test_shared_memory_that_the_system_refuses_is_one_warning_and_no_pixel_changes(expected):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == expected
    assert done.stderr.count("they go through pipes") == 1


class Sizes(Pixels):
    """Images whose size follows from the batch that they are in."""

    def sample(self, index, rng):
        image, label = super().sample(index, rng)
        return np.resize(image, [3, 8 + index // 4, 8]), label


def test_a_batch_that_is_larger_than_its_slot_comes_all_the_same():
    def batches(num_workers):
        sampler = DistributedBatchSampler(4, shuffle=False, num_samples=NUM_SAMPLES)
        loader = Loader(Sizes(), sampler, num_workers, seed=SEED)
        return [(images.shape, hashlib.sha256(images.numpy().tobytes()).hexdigest()) for images, _ in loader]

    here = batches(0)
    assert [shape[2] for shape, _ in here] == list(range(8, 19))
    assert batches(1) == batches(2) == here


def test_what_a_batch_was_made_of_is_not_touched_once_it_is_given(expected):
    loader = make_loader(Pixels(), num_workers=2, prefetch_factor=1)
    kept = list(loader)
    hashes = [hashlib.sha256(image.numpy().tobytes() + label.numpy().tobytes()).hexdigest() for image, label in kept]
    assert hashes == expected[:11]
    loader.close()


def test_finish_gets_each_batch_with_its_place(expected):
    for num_workers in (0, 2):
        seen = []

        def finish(images, labels, epoch, batch, seen=seen):
            seen.append((epoch, batch, hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()))
            return epoch, batch

        loader = make_loader(Pixels(), num_workers=num_workers, finish=finish)
        loader.set_epoch(2)
        given = list(loader.iterate(3))
        assert given == [(2, batch) for batch in range(3, 11)]
        assert seen == [(2, batch, expected[11 + batch]) for batch in range(3, 11)]
        loader.close()


def test_a_loader_without_worker_processes_says_so(monkeypatch, caplog, expected):
    from ppcls.data import loader as module

    monkeypatch.setattr(module, "can_fork", lambda: False)
    loader = make_loader(Pixels(), num_workers=2)
    assert loader.num_workers == 0
    assert caplog.messages == ["num_workers is 2, but worker processes need Linux: none are started"]
    assert hashes_of(loader) == expected[:11]
    assert module.default_workers() == 0


@pytest.mark.parametrize(
    "cores, processes, workers", [(1, 1, 0), (2, 1, 2), (2, 2, 1), (2, 4, 1), (64, 1, 8), (64, 16, 4)]
)
def test_as_many_workers_as_cores_by_default(monkeypatch, cores, processes, workers):
    from ppcls.data import loader as module

    monkeypatch.setattr(module, "usable_cores", lambda: cores)
    monkeypatch.setenv("PADDLE_LOCAL_SIZE", str(processes))
    assert make_loader(Pixels(), num_workers=None).num_workers == workers
