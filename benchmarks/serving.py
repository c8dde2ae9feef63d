# SPDX-License-Identifier: Apache-2.0
"""What serving costs: the server's throughput over the Predictor's own, and its latency under ten times its load.

    python benchmarks/serving.py --bundle inference/DenseNet121 --images folder/of/JPEGs [--per_request 1] [--rounds 3]

The Predictor's own throughput is that of one process without HTTP, from image files to answers in batches of the
server's size, as `tools/infer.py --bundle` does it with all cores. The server is `tools/serve.py` with its defaults and
16 clients that ask again as soon as they are answered; both take turns, and the figure is the ratio of their best
rounds. Clients run on the same cores, and their time counts against the server.

The latency is that of another server, which takes in so many requests at a time (`--accepted`, 1 or 2): with one, what
is accepted waits for nobody, and the model waits while the next image is read; with two, each waits for one other. Its
99th percentile at ten times the capacity (requests come at that rate, answered or not) is held against that of one
client alone, the best round of each. Where one thread of Python cannot send ten times as much, as of a
model that takes a tenth of a millisecond, `--per_request 16` sends forms of 16 images.
"""

import argparse
import asyncio
import itertools
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "toys")]

import load  # noqa: E402 (of the tests)
from served import ServerProcess, form, request_bytes  # noqa: E402

from ppcls.utils.machine import usable_cores  # noqa: E402

NUM_CLIENTS = 16
NUM_FILES = 64
MAX_CLIENTS = 200


def predictor(pipe, bundle: str, files: list[str], batch_size: int) -> None:
    """In a process of its own: for so many seconds from files to answers, whenever it is asked to."""
    from ppcls.deploy.classifier import Classifier

    classifier = Classifier(bundle)
    whole = files * -(-batch_size // len(files))
    groups = itertools.cycle([whole[start : start + batch_size] for start in range(0, len(whole), batch_size)])
    list(classifier(files[:batch_size], batch_size))
    pipe.send("ready")
    for seconds in iter(pipe.recv, None):
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            count += len(list(classifier(next(groups), batch_size)))
        pipe.send(count / (time.perf_counter() - started))


def requests_of(files: list[str], per_request: int) -> list[bytes]:
    """Whole requests, each of so many images."""
    contents = itertools.cycle([(Path(file).name, Path(file).read_bytes()) for file in files])
    requests = []
    for _ in files:
        images = list(itertools.islice(contents, per_request))
        if per_request == 1:
            requests.append(request_bytes(images[0][1]))
        else:
            body, headers = form(*images)
            requests.append(request_bytes(body, f"Content-Type: {headers['Content-Type']}\r\n"))
    return requests


class Tally:
    """The replies of one turn."""

    def __init__(self) -> None:
        self.answered: list[float] = []
        self.refused: list[float] = []

    def __call__(self, key: object, reply: load.Reply) -> None:
        """Count one."""
        assert reply.status in (200, 503), (reply.status, reply.body)
        (self.answered if reply.status == 200 else self.refused).append(reply.seconds)


def for_seconds(requests: list[bytes], seconds: float):
    """The requests again and again, for so long."""
    ends = time.perf_counter() + seconds
    for request in itertools.cycle(requests):
        if time.perf_counter() > ends:
            return
        yield None, request


def closed(port: int, clients: int, requests: list[bytes], seconds: float) -> tuple[Tally, float]:
    """What so many clients get, and in how many seconds."""
    tally, started = Tally(), time.perf_counter()
    asyncio.run(load.closed_loop(port, clients, for_seconds(requests, seconds), tally, pause=0.002))
    return tally, time.perf_counter() - started


def serve(bundle: str, folder: str, *options: object) -> ServerProcess:
    """A server with all cores."""
    return ServerProcess(bundle, "--threads", usable_cores(), *options, log=Path(folder, "stderr"))


def end(server: ServerProcess) -> None:
    """Stop it."""
    server.signal(signal.SIGTERM)
    server.wait()
    server.end()


def throughput(arguments: argparse.Namespace, files: list[str], requests: list[bytes], folder: str) -> None:
    here, there = multiprocessing.get_context("spawn").Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=predictor, args=(there, arguments.bundle, files, arguments.max_batch))
    process.start()
    here.recv()
    server = serve(arguments.bundle, folder, "--max_batch", arguments.max_batch, "--max_queue", arguments.max_queue)
    closed(server.port, NUM_CLIENTS, requests, 1.0)
    own, served = [], []
    for _ in range(arguments.rounds):
        here.send(arguments.seconds)
        own.append(here.recv())
        tally, seconds = closed(server.port, NUM_CLIENTS, requests, arguments.seconds)
        served.append(len(tally.answered) * arguments.per_request / seconds)
        if tally.refused:
            print(f"  ({len(tally.refused)} requests were refused: --max_queue {arguments.max_queue})")
    end(server)
    here.send(None)
    process.join()
    row(f"throughput at {NUM_CLIENTS} clients over the Predictor's own, images/s", max(served), max(own), ">= 0.80")


def latency(arguments: argparse.Namespace, requests: list[bytes], folder: str) -> None:
    per = arguments.per_request
    server = serve(
        arguments.bundle, folder, "--max_batch", per, "--max_queue", arguments.accepted * per, "--max_images", per
    )
    closed(server.port, 1, requests, 1.0)
    rounds = []
    for _ in range(arguments.rounds):
        alone, _ = closed(server.port, 1, requests, arguments.seconds)
        both, seconds = closed(server.port, arguments.accepted, requests, arguments.seconds)
        capacity = len(both.answered) / seconds
        tally = Tally()
        sent = asyncio.run(
            load.open_loop(
                server.port,
                10 * capacity,
                arguments.seconds,
                MAX_CLIENTS,
                lambda number: (None, requests[number % len(requests)]),
                tally,
            )
        )
        figures = [load.percentile(each.answered, 0.99) * 1000 for each in (tally, alone)]
        rounds.append(figures)
        refused = [1000 * load.percentile(tally.refused, share) for share in (0.5, 0.99)] if tally.refused else [0, 0]
        print(
            f"  (capacity {capacity:.1f} requests/s, {sent / arguments.seconds / capacity:.1f} times as many sent, "
            f"{len(tally.answered) / arguments.seconds / capacity:.0%} of it answered; {len(tally.refused)} refused, "
            f"half within {refused[0]:.1f} ms, 99 % within {refused[1]:.1f} ms; "
            f"p99 {figures[0]:.1f}, alone {figures[1]:.1f} ms)"
        )
    end(server)
    best = [min(each) for each in zip(*rounds)]
    title = f"p99 at ten times the capacity over p99 alone, {arguments.accepted} at a time, ms"
    row(title, best[0], best[1], "<= 2.00")


def row(title: str, ours: float, baseline: float, target: str) -> None:
    print(f"{title:<68} {ours:>9.1f} {baseline:>9.1f} {ours / baseline:>6.2f} {target:>8}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True, help="what tools/export_model.py wrote")
    parser.add_argument("--images", required=True, help="a folder with JPEG files")
    parser.add_argument("--per_request", type=int, default=1, help="images in a request (default: 1)")
    parser.add_argument(
        "--accepted", type=int, default=1, help="requests taken in at a time under overload (default: 1)"
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="of each turn (default: 4)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side (default: 3)")
    parser.add_argument("--max_batch", type=int, default=8, help="of server and Predictor (default: 8, the server's)")
    arguments = parser.parse_args()
    arguments.max_queue = max(64, NUM_CLIENTS * arguments.per_request)
    files = [
        str(path) for path in sorted(Path(arguments.images).rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg")
    ]
    if not files:
        parser.error(f"--images: no JPEG file in {arguments.images}")
    files = files[:: max(1, len(files) // NUM_FILES)][:NUM_FILES]
    requests = requests_of(files, arguments.per_request)
    machine = f"{usable_cores()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{arguments.bundle}, {arguments.per_request} to a request, {machine}")
    print(f"{'case':<68} {'ours':>9} {'baseline':>9} {'ratio':>6} {'target':>8}")
    with tempfile.TemporaryDirectory() as folder:
        throughput(arguments, files, requests, folder)
        latency(arguments, requests, folder)


if __name__ == "__main__":
    main()
