# SPDX-License-Identifier: Apache-2.0
"""How fast images become batches: the rate of each way over that of a baseline, in one run.

    python benchmarks/data_loading.py --images folder/of/JPEGs [--rounds 7] [--only cifar]

Both sides of a case run in processes of their own and take turns, those that do a worker's work on the same core; the
figure is the ratio of their best rounds. Files are held in memory, so that the disk is not measured.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, os.path.abspath(os.path.join(os.path.dirname(__file__), "..")))

import cv2
import numpy as np

from ppcls.data.batch_maker import BatchMaker
from ppcls.data.dataset import ImageDataset
from ppcls.data.files import FileDataset
from ppcls.data.loader import Loader
from ppcls.data.pack_encoder import Shrinking
from ppcls.data.pack_writer import write_pack
from ppcls.data.packed import PackedDataset
from ppcls.data.position import Position
from ppcls.data.sampler import DistributedBatchSampler
from ppcls.data.transforms import (
    CropImage,
    DecodeImage,
    NormalizeImage,
    Pad,
    RandCropImage,
    RandFlipImage,
    RandomCropImage,
    ResizeImage,
)
from ppcls.utils.memory import keep_freed_memory
from ppcls.utils.stderr import allow_quiet

BATCH = 32
PHOTO_PIXELS = 12_000_000
NUM_PHOTOS = 16
CIFAR_IMAGES = 50_000
LONG_EPOCH = 2000
ENOUGH = 100
"""Draws of crops in a round, at least."""


class InMemory(ImageDataset):
    """Files or images that are held in memory."""

    def __init__(self, items, ops):
        super().__init__(np.zeros(len(items), np.int64), ops)
        self.items = items

    def read(self, index):
        """Return a file's bytes or an image."""
        return self.items[index], 0

    def where(self, index):
        """Return its number."""
        return f"image {index}"


class InMemoryBatches(InMemory):
    """Images of one size, augmented many at a time, as Cifar10 does."""

    @property
    def makes_batches(self):
        """Whether all operations take many images at a time."""
        return self.pipeline.takes_batches

    def samples(self, indices, rng):
        """Return images and labels of all indices."""
        return self.pipeline.many(self.items[indices], rng), self.labels[indices]


def training_ops(draft: bool = False) -> list:
    return [DecodeImage(draft=draft), RandCropImage(224), RandFlipImage(), NormalizeImage(order="")]


def evaluation_ops() -> list:
    return [DecodeImage(), ResizeImage(resize_short=256), CropImage(224), NormalizeImage(order="")]


def jpegs(folder: str) -> list[Path]:
    return [path for path in sorted(Path(folder).rglob("*")) if path.suffix.lower() in (".jpeg", ".jpg")]


def read_all(folder: str) -> list[bytes]:
    return [path.read_bytes() for path in jpegs(folder)]


def decode_alone(folder: str) -> Callable[[int], int]:
    """The baseline: nothing but ``cv2.imdecode``."""
    arrays = [np.frombuffer(data, np.uint8) for data in read_all(folder)]

    def work(number: int) -> int:
        for array in arrays:
            cv2.imdecode(array, cv2.IMREAD_COLOR)
        return len(arrays)

    return work


def worker(dataset: ImageDataset) -> Callable[[int], int]:
    """What a worker process does: batches of uint8 into memory that is there already."""
    keep_freed_memory()
    allow_quiet()
    dataset.pipeline.finish()
    make = BatchMaker(dataset, seed=0)
    slot = np.empty(BATCH * 224 * 224 * 3, np.uint8)

    def empty(shape, dtype):
        return slot[: np.prod(shape)].reshape(shape) if dtype == np.uint8 else np.empty(shape, dtype)

    # Every round has the same draws, and enough of them.
    epochs = range(1, 2 + ENOUGH // len(dataset))

    def work(number: int) -> int:
        for epoch in epochs:
            for start in range(0, len(dataset), BATCH):
                make([Position(epoch, index) for index in range(start, min(start + BATCH, len(dataset)))], empty)
        return len(dataset) * len(epochs)

    return work


def training(folder: str) -> Callable[[int], int]:
    return worker(InMemory(read_all(folder), training_ops()))


def training_drafts(folder: str) -> Callable[[int], int]:
    return worker(InMemory(read_all(folder), training_ops(draft=True)))


def evaluation(folder: str) -> Callable[[int], int]:
    return worker(InMemory(read_all(folder), evaluation_ops()))


def packed(folder: str) -> Callable[[int], int]:
    """From the pack's own file: the system holds it in memory."""
    return worker(PackedDataset(os.path.join(folder, "pack"), training_ops()))


def loader_epochs(num_workers: int) -> Callable[[str], Callable[[int], int]]:
    def build(folder: str) -> Callable[[int], int]:
        # Long enough for the last batches, which not all workers have a share of, not to count.
        files = read_all(folder)
        dataset = InMemory(files * (1 + LONG_EPOCH // len(files)), training_ops())
        dataset.pipeline.finish()  # by whom takes the batches: on a GPU that costs this machine nothing
        sampler = DistributedBatchSampler(BATCH, shuffle=True, num_samples=len(dataset))
        loader = Loader(dataset, sampler, num_workers=num_workers)

        def work(number: int) -> int:
            loader.set_epoch(number)
            return sum(len(labels) for _, labels in loader)

        return work

    return build


def cifar(kind: type[InMemory], is_split: bool) -> Callable[[str], Callable[[int], int]]:
    def build(folder: str) -> Callable[[int], int]:
        images = np.random.RandomState(0).randint(0, 256, (CIFAR_IMAGES, 32, 32, 3), np.uint8)
        dataset = kind(images, [Pad(4), RandomCropImage(32), RandFlipImage(), NormalizeImage(order="")])
        finish = dataset.pipeline.finish() if is_split else None
        sampler = DistributedBatchSampler(128, shuffle=True, num_samples=len(dataset))
        loader = Loader(dataset, sampler, finish=finish)

        def work(number: int) -> int:
            loader.set_epoch(number)
            return sum(len(labels) for _, labels in loader)

        return work

    return build


CASES = {
    "training": ("ImageNet training transforms, one core, over decoding alone", training, decode_alone, 0.90),
    "drafts": ("the same with drafts, as the recipes have it", training_drafts, decode_alone, 0.90),
    "photos": ("the same on 12-megapixel photos", training_drafts, decode_alone, 4.0),
    "packed": ("packed at shorter side 288, quality 90, over decoding the originals", packed, decode_alone, 2.3),
    "workers": ("two workers over one", loader_epochs(2), loader_epochs(1), 1.8),
    "cifar": (
        "CIFAR epoch, batch-wise over image by image",
        cifar(InMemoryBatches, True),
        cifar(InMemory, False),
        10.0,
    ),
    "evaluation": ("evaluation transforms, one core, over decoding alone", evaluation, decode_alone, 0.80),
}

WHOLE_MACHINE = ("workers", "cifar")
"""Cases that run in the training process, or in several."""


def take_turns(pipe, case: str, side: int, folder: str) -> None:
    """In a process of its own: a round whenever it is asked for."""
    if case not in WHOLE_MACHINE:
        cv2.setNumThreads(0)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {0})
    work = CASES[case][1 + side](folder)
    work(1)
    pipe.send("ready")
    for number in iter(pipe.recv, None):
        started = time.perf_counter()
        count = work(number)
        pipe.send((time.perf_counter() - started) / count)


def measure(case: str, folders: tuple[str, str], rounds: int) -> tuple[float, float]:
    """The best seconds per image of both sides."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for side, folder in enumerate(folders):
        here, there = context.Pipe()
        processes.append(context.Process(target=take_turns, args=(there, case, side, folder)))
        processes[-1].start()
        pipes.append(here)
        here.recv()
    seconds: list[list[float]] = [[], []]
    for number in range(2, rounds + 2):
        for pipe, measured in zip(pipes, seconds):
            pipe.send(number)
            measured.append(pipe.recv())
    for pipe, process in zip(pipes, processes):
        pipe.send(None)
        process.join()
    return min(seconds[0]), min(seconds[1])


def make_photos(images: str, folder: str, quality: int) -> None:
    """Enlarge images to 12 megapixels."""
    for number, data in enumerate(read_all(images)[:NUM_PHOTOS]):
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        factor = (PHOTO_PIXELS / (image.shape[0] * image.shape[1])) ** 0.5
        photo = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(os.path.join(folder, f"{number}.jpg"), photo, [cv2.IMWRITE_JPEG_QUALITY, quality])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="a folder with JPEG files, such as some of ImageNet (all cases but cifar)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side (default: 7)")
    parser.add_argument(
        "--photo-quality", type=int, default=75, help="of the enlarged JPEGs (default: 75, as libjpeg's)"
    )
    parser.add_argument("--only", choices=CASES, action="append", help="a case; all by default")
    arguments = parser.parse_args()
    chosen = arguments.only or list(CASES)
    if not arguments.images and chosen != ["cifar"]:
        parser.error("--images is missing: name a folder with JPEG files")
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'case':<72} {'us/image':>9} {'baseline':>9} {'ratio':>6} {'target':>6}")
        for case in chosen:
            folders = (arguments.images, arguments.images)
            if case == "photos":
                make_photos(arguments.images, folder, arguments.photo_quality)
                folders = (folder, folder)
            if case == "packed":
                source = FileDataset(
                    list(map(str, jpegs(arguments.images))), np.zeros(len(jpegs(arguments.images)), np.int64)
                )
                for _ in write_pack(source, arguments.images, os.path.join(folder, "pack"), Shrinking(288, 90)):
                    pass
                folders = (folder, arguments.images)
            ours, baseline = measure(case, folders, arguments.rounds)
            title, target = CASES[case][0], CASES[case][3]
            print(
                f"{title:<72} {ours * 1e6:>9.1f} {baseline * 1e6:>9.1f} {baseline / ours:>6.2f} {target:>6.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
