"""ASGI applications on ports of their own, in threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from loadtests.ports import free_port
from serve_app.ui.client import ApiClient
from serve_app.ui.page import PageLimits, build_page, make_uploads
from serve_app.ui.uploads import UploadLimits, UploadStore

MAX_UPLOAD_BYTES = 8 * 2**20
PREFIX = "/ui"
LIMITS = PageLimits(4, 8, MAX_UPLOAD_BYTES, live_captions=True)


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """Yields the address of an application."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.force_exit = server.should_exit = True
        thread.join()


@contextmanager
def serving_page(
    api_url: str,
    directory: Path,
    limits: PageLimits = LIMITS,
    max_stored_bytes: int = 2 * MAX_UPLOAD_BYTES,
    uploads: UploadStore | None = None,
) -> Iterator[str]:
    """Yields the address of a page over an API, under a prefix as Serve has it."""
    uploads = uploads or stored_in(directory, max_stored_bytes)
    app = build_page(ApiClient(api_url, timeout_s=60), uploads, limits)
    with serving(_Prefixed(app)) as url:
        yield f"{url}{PREFIX}/"


def stored_in(directory: Path, max_bytes: int = 2 * MAX_UPLOAD_BYTES) -> UploadStore:
    """Returns a store of which one visitor may have all."""
    return make_uploads(directory, UploadLimits(max_bytes, max_bytes, keep_s=3600))


class _Prefixed:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            scope = {**scope, "root_path": PREFIX}
        await self._app(scope, receive, send)
