# SPDX-License-Identifier: Apache-2.0
"""What the server counts and measures, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one server; each may be used from any thread.

    Attributes:
        requests: by status code; malformed ones that never became a request count as 400.
        images: by what became of them: answered, bad, failed, late.
        queue: images that are taken in and not answered yet.
        connections: open ones.
        batch_size: images answered at once.
        seconds: from the head of a request for answers to the answer, of those that got one.
        reloads: by result: swapped, refused.
        lost_lines: of the log, which nobody reads or which is full.
    """

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("ppcls_requests", "Requests by status code", ["code"], registry=registry)
        self.images = Counter("ppcls_images", "Images by outcome", ["outcome"], registry=registry)
        self.queue = Gauge("ppcls_queue_images", "Images taken in and not answered yet", registry=registry)
        self.connections = Gauge("ppcls_connections", "Open connections", registry=registry)
        self.batch_size = Histogram("ppcls_batch_size", "Images answered at once", registry=registry, buckets=_SIZES)
        self.seconds = Histogram(
            "ppcls_request_seconds", "Time to answer a request", registry=registry, buckets=_SECONDS
        )
        self.lost_lines = Gauge("ppcls_lost_log_lines", "Lines of the log that nobody took", registry=registry)
        self.reloads = Counter("ppcls_reloads", "Reloads of the bundle by result", ["result"], registry=registry)

    def text(self) -> bytes:
        """All of them in Prometheus's text format."""
        return generate_latest(self.registry)
