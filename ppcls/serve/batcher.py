# SPDX-License-Identifier: Apache-2.0
"""Single images become batches; one thread runs the model."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ppcls.serve.metrics import Metrics
from ppcls.serve.model import ServedModel
from ppcls.utils.errors import PpclsError

logger = logging.getLogger(__name__)
ANSWERED, BAD, FAILED, LATE = "answered", "bad", "failed", "late"
"""What becomes of an image."""


class Request:
    """Images that arrived together and are answered together. Only the event loop's thread changes it.

    Args:
        size: how many.
        deadline: by ``time.monotonic``; what the model has not begun with by then is dropped.
        on_done: called when the last image has its outcome.
    """

    __slots__ = ("deadline", "is_abandoned", "num_open", "on_done", "outcomes", "results")

    def __init__(self, size: int, deadline: float, on_done: Callable[[], None]) -> None:
        self.results: list[dict[str, Any]] = [{}] * size
        self.outcomes = [LATE] * size
        self.num_open = size
        self.deadline = deadline
        self.on_done = on_done
        self.is_abandoned = False

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.is_abandoned or time.monotonic() > self.deadline


class Job(NamedTuple):
    """One image of a request: as bytes when it arrives, as the model's input when it is decoded."""

    request: Request
    place: int
    name: str
    model: ServedModel
    image: Any


class Outcome(NamedTuple):
    """What became of one image."""

    request: Request
    place: int
    outcome: str
    result: dict[str, Any]


class Batcher:
    """A queue of decoded images and the thread that answers them.

    A batch has images of one shape for one model. While images are still being decoded, one that is not full waits
    for them, for a bounded time; otherwise the model never waits.

    Args:
        max_batch: images in a batch.
        max_delay: seconds that a batch waits to become full.
        metrics: where the sizes of batches are counted.
        deliver: called by the thread with the outcomes of each batch.
    """

    def __init__(
        self, max_batch: int, max_delay: float, metrics: Metrics, deliver: Callable[[list[Outcome]], None]
    ) -> None:
        self._max_batch, self._max_delay = max_batch, max_delay
        self._metrics, self._deliver = metrics, deliver
        self._changed = threading.Condition()
        self._queues: dict[tuple[int, tuple[int, ...]], deque[Job]] = {}
        self._num_coming = 0
        self._is_closed = False
        # It must not keep a process from ending at once when it is told to.
        self.thread = threading.Thread(target=self._run, name="model", daemon=True)
        self.thread.start()

    def expect(self, number: int) -> None:
        """Say that so many images are being decoded (or, negative, will not come after all)."""
        with self._changed:
            self._num_coming += number
            if number < 0 and not self._num_coming:
                self._changed.notify()

    def put(self, job: Job) -> None:
        """Add an image that was expected."""
        with self._changed:
            self._num_coming -= 1
            queue = self._queues.setdefault((id(job.model), job.image.shape), deque())
            queue.append(job)
            if len(queue) in (1, self._max_batch) or not self._num_coming:
                self._changed.notify()

    def close(self) -> None:
        """Let the thread end when the queue is empty."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _run(self) -> None:
        while batch := self._next_batch():
            in_time: list[Job] = []
            over: list[Job] = []
            for job in batch:
                (over if job.request.is_over else in_time).append(job)
            if over:
                self._deliver([Outcome(job.request, job.place, LATE, _late(job)) for job in over])
            if in_time:
                self._metrics.batch_size.observe(len(in_time))
                self._deliver(_answer(in_time))
            # Nothing of a batch, a replaced model above all, is to be held until the next one comes.
            del batch, in_time, over, job

    def _next_batch(self) -> list[Job]:
        """The oldest image and those that go with it; none when all is done."""
        with self._changed:
            while not self._queues and not self._is_closed:
                self._changed.wait()
            if not self._queues:
                return []
            key = next(iter(self._queues))
            ends = time.monotonic() + self._max_delay
            while len(self._queues[key]) < self._max_batch and self._num_coming and not self._is_closed:
                left = ends - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            queue = self._queues.pop(key)
            batch = [queue.popleft() for _ in range(min(len(queue), self._max_batch))]
            if queue:
                self._queues[key] = queue  # behind the others, whose turn is next
            return batch


def _answer(batch: list[Job]) -> list[Outcome]:
    try:
        images = np.stack([job.image for job in batch]) if batch[1:] else batch[0].image[None]
        names = [job.name for job in batch]
        results = batch[0].model.answer(images, names)
        return [Outcome(job.request, job.place, ANSWERED, result) for job, result in zip(batch, results)]
    except Exception as error:  # noqa: BLE001 (whatever an engine raises, the next batch may be good)
        if len(batch) > 1:  # one image must not cost the others their answers
            return [outcome for job in batch for outcome in _answer([job])]
        says = str(error) if isinstance(error, PpclsError) else f"{type(error).__name__}: {error}"
        logger.error("%s: not answered (%s)", batch[0].name[:200], says.partition("\n")[0][:300])
        failed = {"file_name": batch[0].name, "error": "the model has failed; the server's log says why"}
        return [Outcome(batch[0].request, batch[0].place, FAILED, failed)]


def _late(job: Job) -> dict[str, Any]:
    return {"file_name": job.name, "error": "not answered in time; try again later"}
