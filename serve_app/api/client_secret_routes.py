"""The HTTP routes that make client secrets, in OpenAI's two shapes.

Source: OpenAI's API reference, "Create client secret" and, older, "Create transcription session".
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from serve_app.api.auth import Authenticator, Caller
from serve_app.api.body import RequestBody, UploadRate
from serve_app.api.client_secrets import ClientSecrets
from serve_app.api.errors import error_response
from serve_app.api.front import log_refusal
from serve_app.api.parameters import Offer
from serve_app.api.realtime_session import (
    RealtimeSession,
    SessionIdentity,
    as_update,
    describe,
    describe_flat,
    new_session,
    update_session,
)
from serve_app.api.request_log import RequestLog, RequestObserver, request_id_of
from serve_app.core.errors import InvalidParameter, MalformedBody, ParaserveError

_MAX_BODY_BYTES = 64 * 1024
_MIN_RATE = UploadRate(min_bytes_per_s=1024, grace_s=10)
_CLIENT_CLOSED_REQUEST = 499

_Body: TypeAlias = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class SecretMaker:
    """Answers requests for client secrets.

    Attributes:
        authenticator: checks the caller's key; a client secret makes no other one.
        client_secrets: makes them.
        offer: of the service.
        identity: returns that of a new session.
        logger: for one line per refusal.
        observer: notified of each request.
    """

    authenticator: Authenticator
    client_secrets: ClientSecrets
    offer: Offer
    identity: Callable[[], SessionIdentity]
    logger: logging.Logger
    observer: RequestObserver

    def client_secret(self, caller: Caller, sent: _Body) -> _Body:
        """Returns a secret in the present shape."""
        session = self._session(sent.get("session"), is_flat=False)
        lifetime_s = _lifetime_s("expires_after", sent.get("expires_after"))
        secret = self.client_secrets.make(caller, as_update(session), lifetime_s)
        return {
            "value": secret.value,
            "expires_at": secret.expires_unix_s,
            "session": describe(session, self.identity()),
        }

    def transcription_session(self, caller: Caller, sent: _Body) -> _Body:
        """Returns a secret in the older shape: a session that holds it."""
        asked = sent.get("client_secret")
        expires = asked.get("expires_at") if isinstance(asked, dict) else None
        lifetime_s = _lifetime_s("client_secret.expires_at", expires)
        session = self._session(sent, is_flat=True)
        secret = self.client_secrets.make(caller, as_update(session), lifetime_s)
        return describe_flat(session, self.identity()) | {
            "client_secret": {"value": secret.value, "expires_at": secret.expires_unix_s}
        }

    async def answer(self, request: Request, make: Callable[[Caller, _Body], _Body]) -> Response:
        """Returns what `make` makes of the caller and of the body."""
        log = RequestLog(request_id_of(request), time.monotonic())
        body = RequestBody(request, _MIN_RATE)
        try:
            caller = self.authenticator.caller_of(request.headers.get("authorization"))
            log.key = caller.name
            made = make(caller, await _read_object(body))
            response: Response = JSONResponse(made, headers={"Cache-Control": "no-store"})
        except ParaserveError as error:
            response = error_response(error)
            log.code = error.code
            await body.discard()
        except ClientDisconnect:
            response = Response(status_code=_CLIENT_CLOSED_REQUEST)
            log.code = "client_disconnected"
        finally:
            body.close()
        log.status = response.status_code
        if log.code is not None:
            log_refusal(self.logger, log)
        self.observer.ended(log)
        return response

    def _session(self, sent: object, *, is_flat: bool) -> RealtimeSession:
        session = new_session(self.offer)
        if sent is None:
            return session
        return update_session(session, sent, self.offer, is_flat=is_flat)


def add_client_secrets(app: FastAPI, maker: SecretMaker) -> None:
    """Adds the routes."""

    @app.post("/client_secrets", response_model=None)
    async def create_client_secret(request: Request) -> Response:
        return await maker.answer(request, maker.client_secret)

    @app.post("/transcription_sessions", response_model=None)
    async def create_transcription_session(request: Request) -> Response:
        return await maker.answer(request, maker.transcription_session)


async def _read_object(body: RequestBody) -> _Body:
    """Returns the JSON object of a body; an empty one for an empty body.

    Raises:
        MalformedBody: it is too large, or no JSON object.
        ClientDisconnect: the caller left.
    """
    content = b""
    async for piece in body.stream():
        content += piece
        if len(content) > _MAX_BODY_BYTES:
            raise MalformedBody(f"it has more than {_MAX_BODY_BYTES} bytes")
    if not content.strip():
        return {}
    try:
        sent = json.loads(content)
    except (ValueError, RecursionError):
        raise MalformedBody("it is not valid JSON") from None
    if not isinstance(sent, dict):
        raise MalformedBody("it is not a JSON object")
    return sent


def _lifetime_s(path: str, sent: object) -> int | None:
    """Returns the lifetime that a caller asks for."""
    if sent is None:
        return None
    if not isinstance(sent, dict) or sent.get("anchor", "created_at") != "created_at":
        raise InvalidParameter(path, "must be an object whose anchor is created_at")
    seconds = sent.get("seconds")
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int)):
        raise InvalidParameter(f"{path}.seconds", "must be a whole number")
    return seconds
