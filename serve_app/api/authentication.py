"""Asks everything under /v1 for its key, and refuses what is no HTTP request."""

from __future__ import annotations

import logging
import time

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.api.auth import Authenticator, Caller
from serve_app.api.body import RequestBody
from serve_app.api.errors import error_response
from serve_app.api.front import log_refusal
from serve_app.api.request_log import RequestLog, RequestObserver, request_id_of
from serve_app.api.screening import request_id_in
from serve_app.core.errors import ParaserveError

_PROTECTED = "/v1"
_CALLER = "paraserve.caller"
# Source: RFC 6455, section 7.4.1.
_POLICY_VIOLATION = 1008


class AuthenticationMiddleware:
    """Answers 401 or 403 to requests whose key is not good.

    There is nothing here for websockets or any other kind of connection, so these are
    closed before they are accepted, whatever they are for.

    Args:
        app: what is protected.
        authenticator: knows the keys.
        logger: for one line a refusal.
        observer: is told of the end of each refused request.
    """

    def __init__(
        self,
        app: ASGIApp,
        authenticator: Authenticator,
        logger: logging.Logger,
        observer: RequestObserver,
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._logger = logger
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._close(scope, send)
            return
        if not _is_protected(scope):
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        log = RequestLog(request_id_of(request), time.monotonic())
        try:
            scope[_CALLER] = self._authenticator.caller_of(request.headers.get("authorization"))
        except ParaserveError as error:
            response = error_response(error)
            log.status, log.code = response.status_code, error.code
            log_refusal(self._logger, log)
            body = RequestBody(request)
            await body.discard()
            body.close()
            try:
                await response(scope, receive, send)
            finally:
                self._observer.ended(log)
        else:
            await self._app(scope, receive, send)

    async def _close(self, scope: Scope, send: Send) -> None:
        log = RequestLog(request_id_in(scope), time.monotonic())
        log.status, log.code = 403, "protocol_not_allowed"
        log_refusal(self._logger, log)
        try:
            if scope["type"] == "websocket":
                # Before it is accepted, servers answer this with 403.
                await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": ""})
        finally:
            self._observer.ended(log)


def caller_of(request: Request) -> Caller:
    """Returns whose request it is, as the middleware found out."""
    caller: Caller = request.scope[_CALLER]
    return caller


def _is_protected(scope: Scope) -> bool:
    # Serve puts its route prefix into both: the path is that of the whole URL.
    path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
    return path == _PROTECTED or path.startswith(f"{_PROTECTED}/")
