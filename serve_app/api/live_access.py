"""Who may open a live session: checks the handshake of a WebSocket before it is accepted.

Source of the subprotocols: OpenAI's Realtime guide, "Connect with WebSockets": a browser, which
cannot set headers, offers `realtime` and `openai-insecure-api-key.KEY`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.websockets import WebSocket, WebSocketDisconnect

from serve_app.api.auth import Authenticator, Caller
from serve_app.api.client_secrets import PREFIX, ClientSecrets
from serve_app.api.errors import error_response
from serve_app.api.front import deny_websocket, log_refusal
from serve_app.api.request_log import RequestLog, RequestObserver
from serve_app.api.screening import request_id_in
from serve_app.core.errors import ParaserveError
from serve_app.core.live_errors import OriginNotAllowed

KEY_SUBPROTOCOL = "openai-insecure-api-key."
CLOSE_CODE_OF_STATUS = 4000
"""A browser sees no status of a refused handshake: it gets the close code 4000 + status."""

_SUBPROTOCOLS = ("realtime", "binary")
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_CLOSE_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Admitted:
    """A caller that may open a session.

    Attributes:
        caller: by its key.
        session: what its client secret was made with; empty with a key.
    """

    caller: Caller
    session: Mapping[str, object]


class LiveAccess:
    """Checks origin and key, and refuses handshakes.

    Args:
        authenticator: checks keys.
        client_secrets: verifies client secrets.
        origins: whose pages may connect, beside the service's own; `*` for all.
        logger: for one line per refusal.
        observer: notified of each refusal.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        client_secrets: ClientSecrets,
        origins: tuple[str, ...],
        logger: logging.Logger,
        observer: RequestObserver,
    ) -> None:
        self._authenticator = authenticator
        self._client_secrets = client_secrets
        self._origins = origins
        self._logger = logger
        self._observer = observer

    def admit(self, websocket: WebSocket) -> Admitted:
        """Returns whom the handshake identifies.

        Raises:
            OriginNotAllowed: another site's page connects.
            Unauthenticated: there is no key, or it is unknown.
            KeyNotAllowed: the key is disabled or has expired.
            KeysUnavailable: keys cannot be checked now.
        """
        if not self._allows_origin(websocket):
            raise OriginNotAllowed
        authorization = websocket.headers.get("authorization")
        if authorization is None:
            offered = [
                one.removeprefix(KEY_SUBPROTOCOL)
                for one in websocket.scope.get("subprotocols", ())
                if one.startswith(KEY_SUBPROTOCOL)
            ]
            authorization = f"Bearer {offered[0]}" if offered else None
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() == "bearer" and key.strip().startswith(PREFIX):
            opened = self._client_secrets.open(key.strip())
            return Admitted(opened.caller, opened.session)
        return Admitted(self._authenticator.caller_of(authorization), {})

    async def refuse(
        self, websocket: WebSocket, error: ParaserveError, key: str | None = None
    ) -> None:
        """Answers the handshake with the error's status; a page of an allowed site with a code.

        Args:
            websocket: was not accepted.
            error: why.
            key: name of the caller's key, where it is known.
        """
        response = error_response(error)
        log = RequestLog(request_id_in(websocket.scope), time.monotonic())
        if key is not None:
            log.key = key
        log.status, log.code = response.status_code, error.code
        log_refusal(self._logger, log)
        try:
            async with asyncio.timeout(_CLOSE_PATIENCE_S):
                if "origin" in websocket.headers and self._allows_origin(websocket):
                    await websocket.accept(subprotocol_of(websocket))
                    await websocket.close(CLOSE_CODE_OF_STATUS + response.status_code, error.code)
                else:
                    await deny_websocket(
                        response, websocket.scope, websocket.receive, websocket.send
                    )
        except (TimeoutError, RuntimeError, OSError, WebSocketDisconnect):
            # It left before its answer.
            pass
        finally:
            self._observer.ended(log)

    def _allows_origin(self, websocket: WebSocket) -> bool:
        values = websocket.headers.getlist("origin")
        if not values or "*" in self._origins:
            return True
        if len(values) > 1:
            return False
        return values[0] in self._origins or _is_same_site(
            values[0], websocket.headers.get("host", "")
        )


def subprotocol_of(websocket: WebSocket) -> str | None:
    """Returns the offered subprotocol that is spoken here; None if none is.

    Browsers close a connection for which they offered some and none was chosen.
    """
    offered = websocket.scope.get("subprotocols", ())
    return next((one for one in offered if one in _SUBPROTOCOLS), None)


def _is_same_site(origin: str, host: str) -> bool:
    """Whether a page is of the address that it connects to; its scheme may end at a proxy."""
    try:
        page = urlsplit(origin)
        named = urlsplit(f"//{host}")
        port = page.port or _DEFAULT_PORTS.get(page.scheme)
        named_port = named.port or _DEFAULT_PORTS.get(page.scheme)
    except ValueError:
        return False
    return bool(page.hostname) and page.hostname == named.hostname and port == named_port
