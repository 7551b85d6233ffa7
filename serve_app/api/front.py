"""The outermost middleware: checks request heads and turns failures into error responses."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.api.body import RequestBody
from serve_app.api.errors import error_response, internal_error_response
from serve_app.api.headers import bounded_headers
from serve_app.api.methods import path_of
from serve_app.api.request_log import NoObserver, RequestLog, RequestObserver
from serve_app.api.screening import check_host, request_id_in, screen, with_plain_headers
from serve_app.core.errors import ParaserveError

_REQUEST_ID_NAME = b"x-request-id"
# Source: RFC 6455, section 7.4.1.
_POLICY_VIOLATION = 1008
_IS_HEAD = "paraserve.is_head"


class FrontMiddleware:
    """Checks the head of each request, assigns its id, and answers unhandled exceptions.

    Requests that are refused here, and exceptions that nobody else has handled, are logged
    and counted. WebSockets are checked like requests, before they are accepted. All else passes.

    Args:
        app: the wrapped application.
        logger: for one line per rejection or failure.
        observer: notified at the end of each such request.
        allowed_hosts: accepted Host names; empty for any.
    """

    def __init__(
        self,
        app: ASGIApp,
        logger: logging.Logger,
        observer: RequestObserver | None = None,
        allowed_hosts: tuple[str, ...] = (),
    ) -> None:
        self._app = app
        self._logger = logger
        self._observer = observer or NoObserver()
        self._allowed_hosts = allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._check_websocket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        log = RequestLog(request_id_in(scope), time.monotonic())
        answer = _Answer(send, log.request_id)
        try:
            screen(scope)
            check_host(scope, self._allowed_hosts)
            scope = {**scope, "headers": with_plain_headers(scope, log.request_id)}
        except ParaserveError as error:
            await self._refuse(error, log, Request(scope, receive), answer)
            return
        try:
            await self._app(scope, receive, answer.send)
        except Exception:
            self._logger.exception(
                "request failed unexpectedly", extra={"paraserve_request_id": log.request_id}
            )
            log.status, log.code = 500, "internal_error"
            self._observer.ended(log)
            if answer.begun:
                # Only a closed connection can now show the caller that the response is incomplete.
                raise
            await internal_error_response()(scope, receive, answer.send)

    async def _check_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        log = RequestLog(request_id_in(scope), time.monotonic())
        try:
            # Its handshake is a GET, which servers leave out of the scope.
            screen({**scope, "method": "GET"})
            check_host(scope, self._allowed_hosts)
        except ParaserveError as error:
            response = error_response(error)
            log.status, log.code = response.status_code, error.code
            log_refusal(self._logger, log)
            try:
                await deny_websocket(response, scope, receive, send)
            finally:
                self._observer.ended(log)
            return
        await self._app(
            {**scope, "headers": with_plain_headers(scope, log.request_id)}, receive, send
        )

    async def _refuse(
        self, error: ParaserveError, log: RequestLog, request: Request, answer: _Answer
    ) -> None:
        response = error_response(error, path_of(request.scope))
        log.status, log.code = response.status_code, error.code
        log_refusal(self._logger, log)
        try:
            body = RequestBody(request)
            await body.discard()
            body.close()
            await response(request.scope, request.receive, answer.send)
        finally:
            self._observer.ended(log)


def log_refusal(logger: logging.Logger, log: RequestLog) -> None:
    """Logs a request that was refused before its body was read."""
    logger.info(
        "request refused",
        extra={
            "paraserve_request_id": log.request_id,
            "status": log.status,
            "code": log.code,
        },
    )


async def deny_websocket(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers the handshake of a WebSocket with a response instead of an upgrade.

    Servers without the ASGI extension for that answer 403.
    """
    if "websocket.http.response" in scope.get("extensions", {}):
        await response(scope, receive, send)
    else:
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": ""})


class _Answer:
    """Passes a response on, with bounded headers and one request id."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.begun = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            message = {**message, "headers": self._headers(message.get("headers", ()))}
        await self._send(message)

    def _headers(self, headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        # Ray copies the id of the request into the response itself.
        others = [(name, value) for name, value in headers if name.lower() != _REQUEST_ID_NAME]
        return [*bounded_headers(others), (_REQUEST_ID_NAME, self._request_id.encode("ascii"))]


class CanonicalMiddleware:
    """Accepts a trailing slash on every path, and HEAD wherever there is GET.

    It rewrites the path: with some clients, a redirect would lose the body of a POST.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = str(scope["path"])
        root = f"{scope.get('root_path', '')}/"
        if path.endswith("/") and path != root:
            scope = {**scope, "path": path.rstrip("/") or root}
        if scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        # The server keeps its own scope, in which this is still a HEAD request.
        scope = {**scope, "method": "GET", _IS_HEAD: True}

        async def send_without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app(scope, receive, send_without_body)


def is_head(request: Request) -> bool:
    """Returns whether the caller wants the headers alone, so that no stream has to begin."""
    return bool(request.scope.get(_IS_HEAD))
