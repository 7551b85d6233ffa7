"""Refuses new requests while the service stops, and counts requests in flight.

The middleware is the outermost one in the processes that answer HTTP: Ray's proxies, and the
replicas behind HAProxy. It is active only under `paraserve serve`, which sets the run's
directory in the environment.
"""

from __future__ import annotations

import logging
import os
import re
from functools import cache
from pathlib import Path

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.api.errors import error_response
from serve_app.core.errors import ShuttingDown
from serve_app.core.in_flight import RUN_DIRECTORY_VARIABLE, InFlightCounter

_LOGGER = logging.getLogger("ray.serve.paraserve")

_API = re.compile(r"(^|/)v1(/|$)")
"""Paths whose requests delay the end; those of the page hold connections for hours."""

_EVENTS = re.compile(r"/v1/jobs/[^/]+/events/?$")
"""Paths whose streams do not delay the end: a caller opens one again, wherever the service is."""

_ALWAYS_ANSWERED = re.compile(r"(^/-/)|(/healthz$)")
"""Requests of Ray's own proxies, and the liveness probe."""


@cache
def counter_of_process() -> InFlightCounter | None:
    """Returns the counter of this process, None outside of `paraserve serve`."""
    directory = os.environ.get(RUN_DIRECTORY_VARIABLE)
    if directory is None or not Path(directory).is_dir():
        return None
    return InFlightCounter(Path(directory))


class DrainMiddleware:
    """Answers 503 once the service is draining.

    Args:
        app: the wrapped application.
        counter: None to accept every request.
    """

    def __init__(self, app: ASGIApp, counter: InFlightCounter | None = None) -> None:
        self._app = app
        self._counter = counter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        counter = self._counter
        path = str(scope.get("path", ""))
        if counter is None or scope["type"] != "http" or _ALWAYS_ANSWERED.search(path):
            await self._app(scope, receive, send)
            return
        if not _API.search(path) or _EVENTS.search(path):
            await (_refusal() if counter.is_draining else self._app)(scope, receive, send)
            return
        # Counted before the check: once the count is zero and the service drains, no request
        # can begin.
        counter.enter()
        try:
            await (_refusal() if counter.is_draining else self._app)(scope, receive, send)
        finally:
            counter.leave()


def _refusal() -> JSONResponse:
    _LOGGER.info("request refused", extra={"status": 503, "code": ShuttingDown.code})
    response = error_response(ShuttingDown())
    # A retry must open a new connection, to another service or to this one's successor.
    response.headers["Connection"] = "close"
    return response
