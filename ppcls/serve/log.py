# SPDX-License-Identifier: Apache-2.0
"""Where the server's lines go: a log that nobody reads any more, or that is full, does not keep it from answering."""

from __future__ import annotations

from typing import TextIO


class LogStream:
    """A stream that gives up on what cannot be written.

    Args:
        stream: the real one.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.num_lost = 0

    def write(self, text: str) -> int:
        """Write if it can be written."""
        try:
            return self.stream.write(text)
        except OSError:
            self.num_lost += 1
            return len(text)

    def flush(self) -> None:
        """Flush if it can be."""
        try:
            self.stream.flush()
        except OSError:
            self.num_lost += 1
