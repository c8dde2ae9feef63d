# SPDX-License-Identifier: Apache-2.0
"""The images of a request: its body as it comes, alone or in the parts of a form; no more than the limits say."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from ppcls.serve.limits import Limits
from ppcls.serve.multipart import boundary_of, parts_of
from ppcls.serve.refusal import Refusal


class Intake:
    """Reads requests.

    Args:
        limits: how much is taken.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._num_held = 0

    def check_head(self, request: web.BaseRequest) -> None:
        """Refuse what needs no look at the body.

        Raises:
            Refusal: it is too large, or comes in a form that is not taken.
        """
        if (request.content_length or 0) > self.limits.max_request_bytes:
            raise self._too_large()
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Refusal(415, "a Content-Encoding is not taken; send the file as it is")

    @contextmanager
    def held(self) -> Iterator[list[int]]:
        """Count the bytes of a request, as its only item, for as long as they are needed."""
        count = [0]
        try:
            yield count
        finally:
            self._num_held -= count[0]

    async def images(self, request: web.BaseRequest, count: list[int]) -> list[tuple[str, bytes]]:
        """The name and the bytes of each image.

        Raises:
            Refusal: it is too large, too slow, or not a form that is taken.
        """
        body = await self._body(request, count)
        if request.content_type.startswith("multipart/"):
            parts = parts_of(body, boundary_of(request.headers["Content-Type"]), self.limits.max_images)
            images = [(part.file_name or f"image {number}", part.content) for number, part in enumerate(parts)]
        else:
            images = [("image 0", body)] if body else []
        if not images:
            raise Refusal(400, "there is no image in the request; send a file's bytes, or a form with files")
        return images

    async def _body(self, request: web.BaseRequest, count: list[int]) -> bytes:
        try:
            if request.content.is_eof():
                return await self._read(request, count)  # it is there already
            return await asyncio.wait_for(self._read(request, count), self.limits.body_seconds)
        except asyncio.TimeoutError:
            raise Refusal(408, f"the request has not come within {self.limits.body_seconds:g} seconds") from None
        except web.RequestPayloadError as error:
            raise Refusal(400, f"the request's body is broken ({error})") from error

    async def _read(self, request: web.BaseRequest, count: list[int]) -> bytes:
        chunks = []
        while chunk := await request.content.readany():
            count[0] += len(chunk)
            self._num_held += len(chunk)
            if count[0] > self.limits.max_request_bytes:
                raise self._too_large()
            if self._num_held > self.limits.max_held_bytes:
                raise Refusal(503, "too much is being read; try again later", may_retry=True)
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _too_large(self) -> Refusal:
        return Refusal(413, f"a request may have {self.limits.max_request_bytes} bytes; send fewer or smaller images")
