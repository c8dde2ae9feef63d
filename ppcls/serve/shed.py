# SPDX-License-Identifier: Apache-2.0
"""A request that is there whole and will be refused: seen at a glance, as ten may come for each that is answered."""

from __future__ import annotations

import re

MAX_HEAD_BYTES = 4096
_HEAD = re.compile(rb"POST /predict HTTP/1\.1\r\n(?:[!#-'*+.0-9A-Z^_`a-z|~-]+:[\t\x20-\x7e]*\r\n)+\r\n")
"""RFC 9112, sections 3 and 5, in its plainest form."""
_LENGTH = re.compile(rb"\r\ncontent-length:[\t ]*(\d{1,10})[\t ]*\r\n")
_OTHER = re.compile(rb"\r\n(?:transfer-encoding|expect|connection|upgrade|te|trailer):")


def is_whole_request(data: bytes) -> bool:
    """Whether these bytes are one request for answers, from its first byte to its last, and ask for nothing special.

    Anything that could be read in two ways is left to a real parser.
    """
    head = _HEAD.match(data, 0, MAX_HEAD_BYTES)
    if head is None:
        return False
    fields = head[0].lower()
    lengths = _LENGTH.findall(fields)
    if len(lengths) != 1 or fields.count(b"content-length") != 1 or _OTHER.search(fields):
        return False
    return len(data) == head.end() + int(lengths[0])
