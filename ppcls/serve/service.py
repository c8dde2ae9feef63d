# SPDX-License-Identifier: Apache-2.0
"""From the bytes of images to answers: what is taken in, decoding in threads, batches, and back to who asked."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from ppcls.data.transforms.image_header import image_size
from ppcls.serve.batcher import ANSWERED, BAD, FAILED, LATE, Batcher, Job, Outcome, Request
from ppcls.serve.limits import Limits
from ppcls.serve.metrics import Metrics
from ppcls.serve.model import ServedModel
from ppcls.utils.errors import DataError
from ppcls.utils.machine import usable_cores

logger = logging.getLogger(__name__)


class QueueFullError(Exception):
    """There is no room for these images now."""


class Service:
    """The model and the way to it. Belongs to one event loop, and is called from its thread.

    Args:
        model: what answers first.
        limits: how much is taken in.
        metrics: where things are counted.

    Attributes:
        model: what answers the requests that come from now on; may be replaced at any time.
        num_images: taken in and not answered yet.
        num_taken: images that were ever taken in.
        num_answered: images that the model has ever answered.
    """

    def __init__(self, model: ServedModel, limits: Limits, metrics: Metrics) -> None:
        self.model, self.limits, self.metrics = model, limits, metrics
        self.num_images = self.num_taken = self.num_answered = 0
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(usable_cores(), thread_name_prefix="decode")
        self._batcher = Batcher(limits.max_batch, limits.max_delay_ms / 1000, metrics, self._from_thread)

    def has_room(self, number: int = 1) -> bool:
        """Whether so many more images would be taken in."""
        return self.num_images + number <= self.limits.max_queue

    async def answer(self, images: Sequence[tuple[str, bytes]], deadline: float) -> Request:
        """The outcome of each image, in order.

        Args:
            images: a name for messages, and a file's bytes.
            deadline: by ``time.monotonic``.

        Raises:
            QueueFullError: they were not taken in.
        """
        if not self.has_room(len(images)):
            raise QueueFullError
        done = asyncio.Event()
        request = Request(len(images), deadline, done.set)
        self.num_images += len(images)
        self.num_taken += len(images)
        self.metrics.queue.set(self.num_images)
        self._batcher.expect(len(images))
        for place, (name, data) in enumerate(images):
            self._pool.submit(self._decode, Job(request, place, name, self.model, data))
        try:
            await done.wait()
        finally:
            request.is_abandoned = True  # by a client that has left, if it is not done
        return request

    def close(self, timeout: float) -> bool:
        """End the threads; whether the one that runs the model has ended within so many seconds."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._batcher.close()
        self._batcher.thread.join(timeout)
        return not self._batcher.thread.is_alive()

    def _decode(self, job: Job) -> None:
        """In a thread of the pool: from a file's bytes to the model's input, and on to the batches."""
        if job.request.is_over:
            self._skip(job, LATE, "not answered in time; try again later")
            return
        try:
            height, width = image_size(job.image, job.name)
            if height * width > self.limits.max_pixels:
                raise DataError(
                    f"{job.name}: {width} x {height} pixels is more than the {self.limits.max_pixels} "
                    "that this server takes; shrink it"
                )
            self._batcher.put(job._replace(image=job.model.prepare(job.image, job.name)))
        except DataError as error:
            self._skip(job, BAD, str(error))
        except Exception as error:  # noqa: BLE001 (one image must not end the thread, or be waited for for ever)
            logger.error("%s: cannot be prepared (%s: %s)", job.name[:200], type(error).__name__, error)
            self._skip(job, FAILED, "the preprocessing has failed; the server's log says why")

    def _skip(self, job: Job, outcome: str, says: str) -> None:
        self._batcher.expect(-1)
        self._from_thread([Outcome(job.request, job.place, outcome, {"file_name": job.name, "error": says})])

    def _from_thread(self, outcomes: list[Outcome]) -> None:
        try:
            self._loop.call_soon_threadsafe(partial(self._deliver, outcomes))
        except RuntimeError:  # the loop has ended: told to leave at once, nobody waits
            logger.debug("%s answers came too late", len(outcomes))

    def _deliver(self, outcomes: list[Outcome]) -> None:
        for request, place, outcome, result in outcomes:
            request.results[place], request.outcomes[place] = result, outcome
            request.num_open -= 1
            self.num_answered += outcome == ANSWERED
            self.metrics.images.labels(outcome).inc()
            if not request.num_open:
                request.on_done()
        self.num_images -= len(outcomes)
        self.metrics.queue.set(self.num_images)


def deadline_after(seconds: float) -> float:
    """The deadline of a request that arrives now."""
    return time.monotonic() + seconds
