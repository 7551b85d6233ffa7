"""The ASGI application of live transcription, below the path /v1/realtime.

`""` is OpenAI's WebSocket, `/funasr` that of FunASR's clients; `/client_secrets` and the older
`/transcription_sessions` make keys for browsers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from serve_app.api import flow_control, realtime_events
from serve_app.api.auth import Authenticator, Caller
from serve_app.api.client_secret_routes import SecretMaker, add_client_secrets
from serve_app.api.client_secrets import ClientSecrets
from serve_app.api.errors import on_http_exception
from serve_app.api.front import CanonicalMiddleware, FrontMiddleware
from serve_app.api.funasr_live import FunasrProtocol, session_options
from serve_app.api.funasr_messages import new_utterance
from serve_app.api.live_access import LiveAccess, subprotocol_of
from serve_app.api.live_connection import ConnectionLimits, LiveConnection, LiveProtocol
from serve_app.api.model_names import resolve_model
from serve_app.api.models import offer_of
from serve_app.api.parameters import Offer
from serve_app.api.realtime import RealtimeProtocol
from serve_app.api.realtime_session import (
    RealtimeSession,
    SessionIdentity,
    new_session,
    update_session,
)
from serve_app.api.request_log import NoObserver, RequestObserver
from serve_app.api.response_headers import EXPOSED_HEADERS
from serve_app.api.routes import access_rules, authenticator_of
from serve_app.api.screening import request_id_in
from serve_app.core.errors import InvalidParameter, ModelNotFound, ParaserveError
from serve_app.core.records import RequestContext, SpeechDetection
from serve_app.live.ports import LiveSession, LiveSessions
from serve_app.live.records import AudioFormat, SessionOptions
from serve_app.settings import Settings

_TRANSCRIPTION = "transcription"
_OLD_HEADER, _OLD_VALUE = "openai-beta", "realtime=v1"
_VAD_THRESHOLD = 0.5
_PREFLIGHT_HOLDS_S = 600
_REQUEST_ID_HEADER = b"x-request-id"


@dataclass(frozen=True, slots=True)
class _Setup:
    """What the routes share."""

    sessions: LiveSessions
    offer: Offer
    access: LiveAccess
    limits: ConnectionLimits
    detection: SpeechDetection
    logger: logging.Logger

    def identity(self) -> SessionIdentity:
        expires = int(time.time() + self.limits.max_session_s)
        return SessionIdentity(realtime_events.new_id("sess"), expires, self.detection)


def build_live_api(
    sessions: LiveSessions,
    settings: Settings,
    logger: logging.Logger,
    observer: RequestObserver | None = None,
    authenticator: Authenticator | None = None,
) -> FastAPI:
    """Returns the application over live sessions, for the route prefix /v1/realtime.

    Args:
        sessions: opens sessions.
        settings: of the whole application.
        logger: gets one line per session and per refusal.
        observer: notified of each refusal.
        authenticator: checks API keys; None for the one of the settings.

    Raises:
        ConfigurationError: keys are required but cannot be read.
    """
    flow_control.enable()
    observer = observer or NoObserver()
    authenticator = authenticator or authenticator_of(settings, logger)
    rules = access_rules(settings.http)
    client_secrets = ClientSecrets(authenticator, settings.live.client_secret_s)
    setup = _Setup(
        sessions,
        offer_of(settings),
        LiveAccess(authenticator, client_secrets, rules.cors_origins, logger, observer),
        ConnectionLimits(settings.live.idle_timeout_s, settings.live.max_session_s),
        SpeechDetection(settings.vad.max_end_silence_ms, threshold=_VAD_THRESHOLD),
        logger,
    )
    app = FastAPI(redirect_slashes=False, openapi_url=None, docs_url=None, redoc_url=None)
    if rules.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=rules.cors_origins,
            allow_methods=("POST",),
            allow_headers=("*",),
            expose_headers=EXPOSED_HEADERS,
            max_age=_PREFLIGHT_HOLDS_S,
        )
    app.add_middleware(_RootPath)
    app.add_middleware(CanonicalMiddleware)
    # The last one is the outermost.
    app.add_middleware(
        FrontMiddleware, logger=logger, observer=observer, allowed_hosts=rules.allowed_hosts
    )
    app.add_exception_handler(HTTPException, on_http_exception)
    _add_sockets(app, setup)
    add_client_secrets(
        app,
        SecretMaker(authenticator, client_secrets, setup.offer, setup.identity, logger, observer),
    )
    return app


class _RootPath:
    """Gives the application's own path, which has no slash at its end, one for the router."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        root = scope.get("root_path", "")
        if scope["type"] in ("http", "websocket") and scope["path"] in ("", root):
            scope = {**scope, "path": f"{root}/"}
        await self._app(scope, receive, send)


def _add_sockets(app: FastAPI, setup: _Setup) -> None:
    async def realtime(websocket: WebSocket) -> None:
        try:
            admitted = setup.access.admit(websocket)
        except ParaserveError as error:
            await setup.access.refuse(websocket, error)
            return
        try:
            session = _first_session(websocket, setup.offer)
            if admitted.session:
                session = update_session(session, admitted.session, setup.offer, is_flat=False)
            opened = await _open(websocket, setup, admitted.caller, session.audio, session.options)
        except ParaserveError as error:
            await setup.access.refuse(websocket, error, admitted.caller.name)
            return
        is_old = websocket.headers.get(_OLD_HEADER, "").strip().lower() == _OLD_VALUE

        def protocol(connection: LiveConnection) -> RealtimeProtocol:
            return RealtimeProtocol(
                connection, session, setup.offer, setup.identity(), is_old=is_old
            )

        connection = _connection(
            websocket, setup, admitted.caller, opened, session.audio, protocol, "realtime"
        )
        await _run(websocket, connection, opened)

    async def funasr(websocket: WebSocket) -> None:
        try:
            admitted = setup.access.admit(websocket)
        except ParaserveError as error:
            await setup.access.refuse(websocket, error)
            return
        utterance = new_utterance(setup.offer)
        audio = AudioFormat("pcm16", utterance.rate_hz)
        try:
            opened = await _open(
                websocket, setup, admitted.caller, audio, session_options(utterance)
            )
        except ParaserveError as error:
            await setup.access.refuse(websocket, error, admitted.caller.name)
            return

        def protocol(connection: LiveConnection) -> FunasrProtocol:
            return FunasrProtocol(connection, utterance, setup.offer)

        connection = _connection(
            websocket, setup, admitted.caller, opened, audio, protocol, "funasr"
        )
        await _run(websocket, connection, opened)

    app.add_api_websocket_route("/", realtime)
    app.add_api_websocket_route("/funasr", funasr)


def _first_session(websocket: WebSocket, offer: Offer) -> RealtimeSession:
    """Returns the configuration that the URL asks for.

    Raises:
        InvalidParameter: it asks for something other than transcription.
        ModelNotFound: `model` is not served, and is no name of a voice agent.
    """
    intent = websocket.query_params.get("intent", _TRANSCRIPTION)
    if intent != _TRANSCRIPTION:
        raise InvalidParameter("intent", f"must be {_TRANSCRIPTION}: there are no voice agents")
    name = websocket.query_params.get("model", "").strip()
    if not name or resolve_model(name, offer) is not None:
        return new_session(offer, name or None)
    if "realtime" in name:
        # Clients must name the model of the agent here; `session.update` says who transcribes.
        return new_session(offer)
    raise ModelNotFound(name[:64], ", ".join((*offer.models, *offer.model_aliases)))


async def _open(
    websocket: WebSocket,
    setup: _Setup,
    caller: Caller,
    audio: AudioFormat,
    options: SessionOptions,
) -> LiveSession:
    return await setup.sessions.open(_context(websocket, caller), audio, options)


def _context(websocket: WebSocket, caller: Caller) -> RequestContext:
    return RequestContext(request_id_in(websocket.scope), caller.name, weight=caller.weight)


def _connection(
    websocket: WebSocket,
    setup: _Setup,
    caller: Caller,
    session: LiveSession,
    audio: AudioFormat,
    protocol: Callable[[LiveConnection], LiveProtocol],
    protocol_name: str,
) -> LiveConnection:
    return LiveConnection(
        websocket,
        setup.sessions,
        session,
        audio,
        _context(websocket, caller),
        setup.limits,
        setup.logger,
        protocol,
        protocol_name,
    )


async def _run(
    websocket: WebSocket,
    connection: LiveConnection,
    session: LiveSession,
) -> None:
    request_id = request_id_in(websocket.scope).encode("ascii")
    try:
        await websocket.accept(subprotocol_of(websocket), [(_REQUEST_ID_HEADER, request_id)])
    except (RuntimeError, OSError, WebSocketDisconnect):
        # It left before it was answered.
        await session.close()
        return
    except asyncio.CancelledError:
        await session.close()
        raise
    await connection.run()
