"""uvicorn's WebSockets with bounds that it does not have.

- Its keepalive ends a connection whose pong does not come within 20 s. The pong of a client that
  sends a file is behind the audio that it has sent, which is read only as fast as it is
  processed; so a pong that is missing says nothing while audio comes or is not read.
- The system would hold megabytes of audio in front of a pong. A small buffer leaves them with
  the sender, whose own pings are answered sooner for it.
- It answers each ping at once, also those of a client that does not read the pongs.
- It waits for a client without end that does not read what was sent before the close.
- It closes every open connection as soon as the server is to stop. Ray Serve stops the server of a
  replica about a second after it has decided to, long before the replica's grace period is over,
  within which the application ends its sessions in order.

`install` makes uvicorn use it in this process (uvicorn 0.54, `config.WS_PROTOCOLS`).
"""

from __future__ import annotations

import socket
from asyncio.transports import BaseTransport

from uvicorn.config import WS_PROTOCOLS
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

_RECEIVE_BUFFER_BYTES = 128 * 1024
_MAX_UNREAD_PONG_BYTES = 256 * 1024
_LINGER_S = 15.0
# Source: RFC 6455, section 7.4.1.
_POLICY_VIOLATION = 1008


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """One WebSocket of a server."""

    def connection_made(self, transport: BaseTransport) -> None:
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        self._received_at = self.loop.time()
        super().connection_made(transport)

    def shutdown(self) -> None:
        if self.close_sent or not self.handshake_complete:
            super().shutdown()

    async def run_asgi(self) -> None:
        await super().run_asgi()
        # Of no effect on a connection that is closed by then.
        self.loop.call_later(_LINGER_S, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        self._received_at = self.loop.time()
        super().data_received(data)

    def keepalive_timeout(self) -> None:
        is_alive = self.read_paused or self._received_at > self.ping_sent_at
        if is_alive and not self.close_sent and not self.transport.is_closing():
            self.pong_timer = None
            self.schedule_ping()
            return
        super().keepalive_timeout()

    def handle_ping(self) -> None:
        super().handle_ping()
        unread = self.transport.get_write_buffer_size()
        if unread > _MAX_UNREAD_PONG_BYTES and not self.close_sent:
            self.conn.fail(_POLICY_VIOLATION, "pongs are not read")
            self.handle_parser_exception()
            self.transport.abort()


def install() -> None:
    """Makes servers that start in this process from now on use it."""
    WS_PROTOCOLS["auto"] = f"{__name__}:{BoundedWebSocket.__name__}"
