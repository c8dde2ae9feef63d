# SPDX-License-Identifier: Apache-2.0
"""Forms with files (RFC 7578), of a body that is there whole.

aiohttp's reader takes forms from the network line by line, in Python; of small images that costs more than the model.
"""

from __future__ import annotations

import re
from email.parser import HeaderParser
from typing import NamedTuple

from ppcls.serve.refusal import Refusal

MAX_HEAD_BYTES = 4096
"""Of one part."""
_BOUNDARY = re.compile(r"[\x20-\x7e]{0,69}[\x21-\x7e]")
"""RFC 2046, section 5.1.1, and a little more."""


class Part(NamedTuple):
    """One part of a form."""

    file_name: str | None
    content: bytes


def boundary_of(content_type: str) -> bytes:
    """What stands between the parts.

    Raises:
        Refusal: it is no form with files, or does not say what stands between them.
    """
    message = HeaderParser().parsestr(f"Content-Type: {content_type}\n\n")
    boundary = message.get_param("boundary")
    if message.get_content_type() != "multipart/form-data":
        raise Refusal(415, f"{message.get_content_type()[:80]} is not taken; send multipart/form-data")
    if not isinstance(boundary, str) or not _BOUNDARY.fullmatch(boundary):
        raise Refusal(400, "multipart/form-data without a boundary that may be one")
    return boundary.encode("ascii")


def parts_of(body: bytes, boundary: bytes, max_parts: int) -> list[Part]:
    """The parts of a form, in order.

    Raises:
        Refusal: it is no intact form, or has too many parts.
    """
    delimiter = b"\r\n--" + boundary
    # One more than may be there, what is in front of the first, and what is behind the last.
    pieces = (b"\r\n" + body).split(delimiter, max_parts + 2)
    parts: list[Part] = []
    for piece in pieces[1:]:
        if piece.startswith(b"--"):
            return parts
        if len(parts) == max_parts:
            raise Refusal(413, f"a request may have {max_parts} images; send more requests")
        # Blanks may stand behind the boundary.
        rest = piece.lstrip(b" \t") if piece[:1] in (b" ", b"\t") else piece
        head, separator, content = rest.partition(b"\r\n\r\n")
        if not separator or not head.startswith(b"\r\n") or len(head) > MAX_HEAD_BYTES:
            raise Refusal(400, "a part of the form has no head; send multipart/form-data as RFC 7578 says")
        parts.append(Part(_file_name(head[2:]), content))
    raise Refusal(400, "the form has no end; send multipart/form-data as RFC 7578 says")


def _file_name(head: bytes) -> str | None:
    message = HeaderParser().parsestr(head.decode("utf-8", "replace"))
    if message.get_content_disposition() != "form-data":
        raise Refusal(400, "a part of the form is not form-data; send multipart/form-data as RFC 7578 says")
    name = message.get_filename()
    # It stands in messages of one line.
    return "".join(each if each.isprintable() else "?" for each in name[:255]) if name else None
