"""A receiver of webhooks, which fails now and then as real ones do."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, slots=True)
class Message:
    """A webhook as it came.

    Attributes:
        headers: by name in lower case.
        body: the signed bytes.
    """

    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Received:
    """What came so far.

    Attributes:
        url: where it is received.
        messages: those that were answered with 204.
        num_failed: those that were answered with 500.
    """

    url: str
    messages: list[Message] = field(default_factory=list)
    num_failed: int = 0


@contextmanager
def receiver(fail_share: float, dice: random.Random) -> Iterator[Received]:
    """Receives webhooks for the length of the block.

    Args:
        fail_share: of the messages that are answered with 500.
        dice: decides which.
    """
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            with lock:
                fails = dice.random() < fail_share
                if fails:
                    received.num_failed += 1
                else:
                    received.messages.append(Message(headers, body))
            self.send_response(500 if fails else 204)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        received = Received(f"http://127.0.0.1:{server.server_port}/")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield received
        finally:
            server.shutdown()
            thread.join()
