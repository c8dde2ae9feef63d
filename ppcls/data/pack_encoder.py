# SPDX-License-Identifier: Apache-2.0
"""What a pack stores of an image, made by any number of processes."""

from __future__ import annotations

import hashlib
import multiprocessing
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import cv2
import numpy as np

from ppcls.data.files import FileDataset
from ppcls.data.transforms import functional
from ppcls.utils.errors import DataError, PeerError
from ppcls.utils.forked import begin_forked

MAX_JPEG_SIDE = 65500
"""The longest side, in pixels, that libjpeg writes."""
_BLOCK_WIDTH = 16
"""Pixels from block to block where colour has half the resolution."""
_TASK_IMAGES = 16
_TASKS_AHEAD = 4


@dataclass(frozen=True)
class Shrinking:
    """Which images are shrunk, and how well they are stored then.

    Args:
        resize_short: images whose shorter side is longer are shrunk to it, in pixels, and stored as JPEG; None stores
            every file as it is.
        quality: of those JPEGs, 1..100.
    """

    resize_short: int | None = None
    quality: int = 90


@dataclass(frozen=True)
class EncodedImage:
    """The bytes that the pack stores, their crc32 and sha256; or why there are none."""

    data: bytes
    crc: int
    sha256: str
    problem: str | None = None


def encode(source: FileDataset, index: int, shrinking: Shrinking) -> EncodedImage:
    """Read and decode an image; return its file as it is, or shrunk where it is larger than wanted."""
    problem = None
    try:
        data, _ = source.read(index)
        try:
            image = functional.decode_image(data)
            if shrinking.resize_short is not None and min(image.shape[:2]) > shrinking.resize_short:
                data = shrunk(image, shrinking.resize_short, shrinking.quality)
        except DataError as error:
            raise DataError(source.named(index, str(error).removeprefix("image: "))) from error
    except DataError as error:
        data, problem = b"", str(error)
    return EncodedImage(data, zlib.crc32(data), hashlib.sha256(data).hexdigest(), problem)


def shrunk(image: np.ndarray, short: int, quality: int) -> bytes:
    """Return uint8 RGB [H, W, 3] as a JPEG whose shorter side is ``short``.

    Colour at half the resolution and Huffman tables made for the image: of all JPEGs of a quality the one that decodes
    fastest, 1.4 times as fast as with colour at full resolution; a progressive one takes three times as long. Each row
    of blocks begins at a restart marker, which costs 3 bytes and lets `only_rows` leave out what a crop does not need.

    Raises:
        DataError: the longer side is longer than a JPEG's can be.
    """
    height, width = image.shape[:2]
    scale = short / min(height, width)
    size = (max(round(width * scale), short), max(round(height * scale), short))
    if max(size) > MAX_JPEG_SIDE:
        raise DataError(f"{width} x {height} pixels are too long and thin for a JPEG")
    # Averages areas: nothing of the image is left out, however much it is shrunk.
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    how = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    how += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    how += [cv2.IMWRITE_JPEG_RST_INTERVAL, -(-size[0] // _BLOCK_WIDTH)]
    return cv2.imencode(".jpg", small[:, :, ::-1], how)[1].tobytes()


def encoded(source: FileDataset, indices: range, shrinking: Shrinking, num_workers: int) -> Iterator[EncodedImage]:
    """Yield the images as they are stored, in this order; workers are at most a few tasks ahead.

    Raises:
        PeerError: a worker died.
    """
    if not num_workers:
        for index in indices:
            yield encode(source, index, shrinking)
        return
    # Forked, so that a list of millions of paths is there without being sent.
    context = multiprocessing.get_context("fork")
    starts = range(0, len(indices), _TASK_IMAGES)
    tasks = (indices[start : start + _TASK_IMAGES] for start in starts)
    # A pool starts all its processes, also those for which there is no work.
    num_workers = max(min(num_workers, len(starts)), 1)
    pool = ProcessPoolExecutor(num_workers, context, _start_worker, (source, shrinking))
    waiting: deque = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(_encode_in_worker, task))
            if len(waiting) >= num_workers * _TASKS_AHEAD:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise PeerError(
            "a process that encodes was killed, perhaps for lack of memory; what is packed is kept: give the same "
            f"command again, with fewer than {num_workers} workers if need be"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_work: tuple[FileDataset, Shrinking]
"""What a worker reads from and how it encodes."""


def _start_worker(source: FileDataset, shrinking: Shrinking) -> None:
    global _work
    _work = source, shrinking
    cv2.setNumThreads(0)
    begin_forked()


def _encode_in_worker(indices: range) -> list[EncodedImage]:
    source, shrinking = _work
    return [encode(source, index, shrinking) for index in indices]
