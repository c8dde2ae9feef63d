# SPDX-License-Identifier: Apache-2.0
"""What the server takes upon itself, and when it gives up."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from ppcls.data.transforms.image_header import MAX_PIXELS
from ppcls.utils.errors import ConfigError

MIB = 1 << 20


def _limit(default: int | float, says: str, least: float = 0) -> Any:
    """A limit with its default, what it is, and the least it may be; of seconds it has to be more than that."""
    return field(default=default, metadata={"says": says, "least": least})


@dataclass(frozen=True)
class Limits:
    """Limits of the server; each is an option of tools/serve.py, and what it is stands beside it.

    Raises:
        ConfigError: one is out of range, or contradicts another.
    """

    max_batch: int = _limit(8, "images answered at once", 1)
    max_delay_ms: float = _limit(2.0, "how long a batch that is not full waits for images that are being decoded")
    max_queue: int = _limit(64, "images that are taken in and not answered yet; more are refused with 503", 1)
    max_images: int = _limit(32, "images in one request", 1)
    max_request_bytes: int = _limit(32 * MIB, "size of a request; a larger one is refused with 413", 1)
    max_held_bytes: int = _limit(512 * MIB, "size of all requests that are being read; more are refused with 503", 1)
    max_pixels: int = _limit(50_000_000, "width times height of an image, as its header says", 1)
    max_connections: int = _limit(256, "open connections; more are refused with 503", 1)
    head_seconds: float = _limit(10.0, "time for the head of a request to arrive; then 408")
    body_seconds: float = _limit(30.0, "time for the rest of it to arrive; then 408")
    idle_seconds: float = _limit(60.0, "how long a connection is kept for another request")
    deadline_seconds: float = _limit(30.0, "age at which a request is dropped if it is not being answered; then 503")
    drain_seconds: float = _limit(10.0, "after SIGTERM: time for what is taken in to be answered")

    def __post_init__(self) -> None:
        problems = []
        for each in fields(self):
            value, least = getattr(self, each.name), each.metadata["least"]
            is_time = each.name.endswith("_seconds")
            if not (least < value < 1e9 if is_time else least <= value < 1e18):
                problems.append(
                    f"--{each.name}: expected {'more than' if is_time else 'at least'} {least}; got {value}"
                )
        if self.max_pixels > MAX_PIXELS:
            problems.append(f"--max_pixels: more than {MAX_PIXELS} are never decoded; got {self.max_pixels}")
        if self.max_images > self.max_queue:
            problems.append(
                f"--max_images: {self.max_images} images of one request never fit into --max_queue {self.max_queue}"
            )
        if self.max_request_bytes > self.max_held_bytes:
            problems.append(
                f"--max_request_bytes: {self.max_request_bytes} never fit into --max_held_bytes {self.max_held_bytes}"
            )
        if problems:
            raise ConfigError(problems)
