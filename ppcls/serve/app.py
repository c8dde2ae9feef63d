# SPDX-License-Identifier: Apache-2.0
"""What the server answers to which request."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from ppcls.serve import metrics as measured
from ppcls.serve.batcher import BAD, FAILED, LATE, Request
from ppcls.serve.connections import FULL_SAYS, Connections
from ppcls.serve.intake import Intake
from ppcls.serve.page import page
from ppcls.serve.refusal import Refusal
from ppcls.serve.service import QueueFullError, Service, deadline_after
from ppcls.serve.token import Token

logger = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable["Answer"]]
CLIENT_LEFT = 499
"""What is counted for requests whose client left in the middle; other servers use the same number."""
OPEN_PATHS = ("/", "/healthz")
"""What needs no token: the page has no secret in it, and who watches over the process need not know any."""


class App:
    """The routes, and what is done about every request.

    Args:
        service: answers images.
        connections: what requests come through.
        token: what clients have to know, or None.

    Attributes:
        is_draining: nothing new is taken in.
    """

    def __init__(self, service: Service, connections: Connections, token: Token | None) -> None:
        self.service, self.metrics, self.limits = service, service.metrics, service.limits
        self.connections, self.token = connections, token
        self.intake = Intake(service.limits)
        self.is_draining = False

    @property
    def num_requests(self) -> int:
        """How many are under way: their head is read, and their answer is not written."""
        return sum(connection.is_answering for connection in self.connections)

    def build(self) -> web.Application:
        """What aiohttp runs."""
        app = web.Application(middlewares=[self._around])
        app.router.add_post("/predict", self.predict, expect_handler=self._expect)
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/metadata", self.metadata)
        app.router.add_get("/metrics", self.text_metrics)
        app.router.add_get("/", self.page)
        app.on_response_prepare.append(_add_headers)
        return app

    async def predict(self, request: web.Request) -> Answer:
        """Answer one image or many."""
        started = time.monotonic()
        deadline = deadline_after(self.limits.deadline_seconds)
        self._check_predict(request)
        with self.intake.held() as count:
            images = await self.intake.images(request, count)
            try:
                answered = await self.service.answer(images, deadline)
            except QueueFullError:
                raise _full() from None
        seconds = time.monotonic() - started
        status = _status(answered)
        if status == 200:
            self.metrics.seconds.observe(seconds)
        headers = {"Server-Timing": f"total;dur={1000 * seconds:.1f}", **(RETRY if status == 503 else {})}
        return _json({"results": answered.results}, status, headers)

    async def healthz(self, request: web.Request) -> Answer:
        """Whether requests are taken in."""
        return _json({"status": "draining"}, 503, RETRY) if self.is_draining else _json({"status": "ready"})

    async def metadata(self, request: web.Request) -> Answer:
        """What the model is, and what is taken."""
        limits = {name: getattr(self.limits, name) for name in ("max_images", "max_request_bytes", "max_pixels")}
        return _json({**self.service.model.metadata(), "limits": limits})

    async def text_metrics(self, request: web.Request) -> Answer:
        """What was counted and measured."""
        return Answer(body=self.metrics.text(), headers={"Content-Type": measured.CONTENT_TYPE})

    async def page(self, request: web.Request) -> Answer:
        """The page for people."""
        html, headers = page()
        return Answer(text=html, content_type="text/html", headers=headers)

    def _check_predict(self, request: web.BaseRequest) -> None:
        """Refuse what can be refused before the images are read."""
        self.intake.check_head(request)
        if not self.service.has_room():
            raise _full()

    async def _expect(self, request: web.Request) -> Answer | None:
        """Tell a client that asks before it sends the images."""
        try:
            self._check(request)
            self._check_predict(request)
        except Refusal as refusal:
            self.metrics.requests.labels(refusal.status).inc()
            return _refused(refusal)
        if request.transport is not None and request.version >= (1, 1):
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return None

    def _check(self, request: web.BaseRequest) -> None:
        token = None if request.path in OPEN_PATHS else self.token
        if token is not None and not token.fits(request.headers.get("Authorization")):
            raise Refusal(401, "this server asks for a token; send the header 'Authorization: Bearer TOKEN'")
        if self.is_draining and request.path == "/predict":
            raise Refusal(503, "the server is about to end; ask another", may_retry=True)

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = self.connections.of(request.transport)
        if connection is None:  # it is closed already
            raise ConnectionResetError
        connection.begin()
        response = await self._respond(request, handler)
        if self.is_draining:
            response.force_close()
        self.metrics.requests.labels(response.status).inc()
        response.on_written = lambda: connection.end(request.content.is_eof())
        return response

    async def _respond(self, request: web.Request, handler: Handler) -> Answer:
        try:
            self._check(request)
            return await handler(request)
        except Refusal as refusal:
            return _refused(refusal)
        except web.HTTPException as error:  # no such path, or not with this method
            headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
            says = f"{error.reason}; there are POST /predict, and GET /, /healthz, /metadata and /metrics"
            return _json({"error": says}, error.status, headers)
        except ConnectionError:  # the client has left; nobody reads an answer
            self.metrics.requests.labels(CLIENT_LEFT).inc()
            raise
        except Exception as error:  # noqa: BLE001 (a bug must not cost more than this request)
            logger.error("%s %s: %s: %s", request.method, request.path[:80], type(error).__name__, error)
            return _json({"error": "the server has failed; its log says why"}, 500)


class Answer(web.Response):
    """A response that tells when it is written."""

    on_written: Callable[[], None] | None = None

    async def write_eof(self, data: bytes = b"") -> None:
        """Write the rest."""
        await super().write_eof(data)
        if self.on_written:
            self.on_written()
            self.on_written = None


RETRY = {"Retry-After": "1"}


def _full() -> Refusal:
    return Refusal(503, FULL_SAYS, may_retry=True)


def _status(request: Request) -> int:
    if FAILED in request.outcomes:
        return 500
    if LATE in request.outcomes:
        return 503
    return 422 if all(outcome == BAD for outcome in request.outcomes) else 200


def _refused(refusal: Refusal) -> Answer:
    headers = dict(RETRY) if refusal.may_retry else {}
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _json({"error": str(refusal)}, refusal.status, headers)


def _json(said: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    return Answer(body=json.dumps(said).encode(), status=status, headers=headers, content_type="application/json")


async def _add_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
    response.headers["Server"] = "ppcls"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
