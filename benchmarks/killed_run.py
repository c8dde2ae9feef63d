# SPDX-License-Identifier: Apache-2.0
"""One real training, killed again and again, against the same training left alone: are the weights the same?

DenseNet100 trains on real CIFAR-10 images twice, with the command that anybody would give. The second time it is
killed (SIGKILL) at random moments, each time started again by the same command, and goes on by itself from its
newest checkpoint. Then the sha256 of everything that both trainings ended with is compared.

    python benchmarks/killed_run.py --data FOLDER [--kills 10] [--images 2560] [--epochs 3] [--json FILE]

FOLDER holds CIFAR-10 as ``train/<class>/*.png`` (or .jpg) and ``test/<class>/*``. As many images as asked for are
taken of each class; with the defaults both trainings together take about ten minutes on two cores.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "configs/CIFAR10/DenseNet100.yaml"
UNTIL = 0.95
"""Of the batches of the training, the last moment for a kill: so that all of them come in time."""
SPREAD = 3
"""A kill comes up to so many batches' time after a batch: what is between two batches may take longer than they do."""
LOOK_SECONDS = 0.05


def choose_images(data: Path, folder: Path, mode: str, number: int) -> None:
    """Link the first images of every class of ``data/mode`` into ``folder/mode``, so many in all."""
    classes = sorted(path for path in (data / mode).iterdir() if path.is_dir())
    for place, of_class in enumerate(classes):
        here = folder / mode / of_class.name
        here.mkdir(parents=True)
        share = number * (place + 1) // len(classes) - number * place // len(classes)
        for image in sorted(of_class.iterdir())[:share]:
            (here / image.name).symlink_to(image.resolve())


def command(folder: Path, output: Path, arguments: argparse.Namespace) -> list[str]:
    settings = [
        f"Global.output_dir={output}",
        f"Global.epochs={arguments.epochs}",
        f"Global.save_step_interval={arguments.save_steps}",
        "Global.checkpoints=auto",
        "Global.print_batch_step=1",
        f"DataLoader.Train.dataset.data_file={folder}",
        f"DataLoader.Eval.dataset.data_file={folder}",
        *arguments.override,
    ]
    words = [word for setting in settings for word in ("-o", setting)]
    return [sys.executable, str(ROOT / "tools" / "train.py"), "-c", str(ROOT / CONFIG), *words]


def train(words: list[str], log: Path, is_time: Callable[[], bool] = lambda: False) -> tuple[float, bool]:
    """Train until it ends, or is killed when it is time; gives how long it ran in seconds, and whether it ended."""
    started = time.monotonic()
    with open(log, "a") as file:
        process = subprocess.Popen(words, cwd=ROOT, stdout=file, stderr=file, start_new_session=True)
        try:
            while process.poll() is None and not is_time():
                time.sleep(LOOK_SECONDS)
        finally:
            is_ended = process.poll() is not None
            if not is_ended:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if is_ended and process.returncode:
        sys.exit(f"the training failed:\n{log.read_text()[-2000:]}")
    return time.monotonic() - started, is_ended


def batches_of(output: Path) -> list[dict]:
    """The records of the batches so far; a line that is being written is none yet."""
    records = output / "train.jsonl"
    lines = records.read_text().splitlines(keepends=True) if records.is_file() else []
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    return [record for record in found if record["event"] == "train"]


def moment_of(output: Path, num_batches: int, seconds: float) -> Callable[[], bool]:
    """When a training is to be killed: so many seconds after it has come, or had come before, to a batch."""
    reached: list[float] = []

    def is_time() -> bool:
        if not reached and len({(line["epoch"], line["batch"]) for line in batches_of(output)}) >= num_batches:
            reached.append(time.monotonic())
        return bool(reached) and time.monotonic() - reached[0] >= seconds

    return is_time


def digests(output: Path, epochs: int) -> dict[str, str]:
    """File -> sha256, of the last checkpoint and the best weights."""
    files = [path for name in (f"epoch_{epochs}", "best_model") for path in sorted((output / name).iterdir())]
    return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def measure(folder: Path, arguments: argparse.Namespace) -> dict:
    """Train twice and return what was found."""
    for mode, number in (("train", arguments.images), ("test", arguments.test_images)):
        choose_images(Path(arguments.data), folder / "images", mode, number)
    alone, killed = folder / "alone", folder / "killed"
    seconds, _ = train(command(folder / "images", alone, arguments), folder / "alone.log")
    print(f"left alone: {seconds:.0f} s", flush=True)
    num_batches = len(batches_of(alone))
    rng = random.Random(arguments.seed)
    # A uniform moment in units of one batch: saving, evaluation and starting up are within some of them.
    moments = sorted(rng.uniform(0, UNTIL * num_batches) for _ in range(arguments.kills))
    words, log = command(folder / "images", killed, arguments), folder / "killed.log"
    total, places = 0.0, []
    for moment in moments:
        ran, is_ended = train(words, log, moment_of(killed, int(moment), moment % 1 * seconds / num_batches * SPREAD))
        total += ran
        if is_ended:
            break
        last = (batches_of(killed) or [{"epoch": 1, "batch": 0}])[-1]
        places.append(f"epoch {last['epoch']} after batch {last['batch']}")
        print(f"kill {len(places)}: {places[-1]}, {ran:.1f} s after it was started", flush=True)
    ran, _ = train(words, log)
    total += ran
    one, other = digests(alone, arguments.epochs), digests(killed, arguments.epochs)
    return {
        "kills": len(places),
        "seed": arguments.seed,
        "images": arguments.images,
        "epochs": arguments.epochs,
        "save_steps": arguments.save_steps,
        "seconds_alone": round(seconds, 1),
        "seconds_killed": round(total, 1),
        "places": places,
        "sha256_alone": one,
        "sha256_killed": other,
        "equal": one == other,
    }


def text_of(told: dict) -> str:
    """What to say of it in a page."""
    weights = f"epoch_{told['epochs']}/model.safetensors"
    one, other = told["sha256_alone"][weights], told["sha256_killed"][weights]
    others = [name for name, digest in told["sha256_alone"].items() if told["sha256_killed"].get(name) != digest]
    return "\n".join(
        [
            f"DenseNet100, {told['epochs']} epochs of {told['images']} real CIFAR-10 images, a checkpoint every "
            f"{told['save_steps']} updates, killed (SIGKILL) {told['kills']} times at random moments "
            f"(seed {told['seed']}) and started again by the same command: "
            f"**{'the same weights' if one == other else 'OTHER WEIGHTS'}** as left alone. "
            f"Of {len(told['sha256_alone'])} files of the last checkpoint and the best weights, not the same: "
            f"{', '.join(others) or 'none'}.",
            "",
            f"| | Kills | Seconds | sha256 of `{weights}` |",
            "|---|---:|---:|---|",
            f"| left alone | 0 | {told['seconds_alone']:.0f} | `{one}` |",
            f"| killed | {told['kills']} | {told['seconds_killed']:.0f} | `{other}` |",
            "",
            f"Killed in: {'; '.join(told['places'])}.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", required=True, metavar="FOLDER", help="CIFAR-10 as train/<class>/* and test/<class>/*"
    )
    parser.add_argument("--kills", type=int, default=10, help="how often the second training is killed")
    parser.add_argument("--images", type=int, default=2560, help="training images")
    parser.add_argument("--test-images", type=int, default=200, help="images that each epoch is evaluated on")
    parser.add_argument("--epochs", type=int, default=3, help="epochs")
    parser.add_argument("--save-steps", type=int, default=5, help="updates between two checkpoints")
    parser.add_argument("--seed", type=int, help="of the moments; by default another one each time")
    parser.add_argument("--json", metavar="FILE", help="write the result there, for benchmarks/reliability.py")
    parser.add_argument("-o", "--override", action="append", default=[], metavar="KEY.PATH=VALUE", help="more settings")
    arguments = parser.parse_args()
    if arguments.seed is None:
        arguments.seed = random.SystemRandom().randrange(2**32)
    with tempfile.TemporaryDirectory() as folder:
        told = measure(Path(folder), arguments)
    text = text_of(told)
    print(text)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({**told, "text": text}, indent=1) + "\n", encoding="utf-8")
    if not told["equal"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
