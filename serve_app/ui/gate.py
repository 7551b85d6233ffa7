"""What stands before Gradio: only the routes that the page needs, and bounded bodies."""

from __future__ import annotations

import re

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.api.flow import BodyWindow, window_of
from serve_app.ui.client import ApiClient, ApiRefusal
from serve_app.ui.problems import Problem, problem_of
from serve_app.ui.uploads import UploadsFull, UploadStore
from serve_app.ui.visits import Visits

_UPLOAD = "/gradio_api/upload"
_HEARTBEAT = "/gradio_api/heartbeat/"
# Gradio serves much more: files by path, a proxy, recordings of runs, an API of its own.
_ROUTES = re.compile(
    r"GET /"
    r"|HEAD /"
    r"|GET /(config|theme\.css|favicon\.ico|manifest\.json|(assets|static|svelte)/.*)"
    r"|GET /gradio_api/(startup-events|theme\.css|queue/data|heartbeat/\w+)"
    r"|POST /gradio_api/(queue/join|cancel|reset|upload)"
)
_MAX_EVENT_BYTES = 4 * 2**20
_MULTIPART_SLACK_BYTES = 16 * 1024
_BEARER = "Bearer "
_HEADERS = {
    # Nothing from elsewhere; Gradio makes functions of the components' scripts.
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
        "media-src 'self' blob:; connect-src 'self' blob:; worker-src 'self' blob:; "
        "object-src 'none'; frame-ancestors 'self'; base-uri 'self'; form-action 'self'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class PageGate:
    """Lets through what the page needs.

    An upload comes in only if it is not too large, if there is room for it, and if the
    API accepts the user's key: the page's disk is not for everybody.

    Args:
        app: Gradio.
        uploads: where uploads lie.
        client: of the API.
        visits: told when a page is closed: its heartbeat is a request that never ends by itself.
        max_upload_bytes: of one file.
    """

    def __init__(
        self,
        app: ASGIApp,
        uploads: UploadStore,
        client: ApiClient,
        visits: Visits,
        max_upload_bytes: int,
    ) -> None:
        self._app = app
        self._visits = visits
        self._uploads = uploads
        self._client = client
        self._max_upload_bytes = max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        # Serve puts its route prefix into both: the path is that of the whole URL.
        path = str(scope["path"]).removeprefix(str(scope.get("root_path", ""))) or "/"

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        receive = _used_at_once(receive, window_of(scope))
        if not _ROUTES.fullmatch(f"{scope['method']} {path}"):
            await JSONResponse({"detail": "not found"}, 404)(scope, receive, send_guarded)
        elif scope["method"] != "POST":
            try:
                await self._app(scope, receive, send_guarded)
            finally:
                if path.startswith(_HEARTBEAT):
                    self._visits.leave(path.removeprefix(_HEARTBEAT))
        else:
            await self._post(scope, receive, send_guarded, is_upload=path == _UPLOAD)

    async def _post(self, scope: Scope, receive: Receive, send: Send, *, is_upload: bool) -> None:
        headers = Headers(scope=scope)
        length = headers.get("content-length", "")
        # Also a body that does not tell its length: browsers always do.
        limit = self._max_upload_bytes + _MULTIPART_SLACK_BYTES if is_upload else _MAX_EVENT_BYTES
        if not length.isdecimal() or int(length) > limit:
            await _refusal("too_large", 413)(scope, receive, send)
        elif is_upload:
            await self._upload(scope, receive, send, int(length))
        else:
            await self._app(scope, receive, send)

    async def _upload(self, scope: Scope, receive: Receive, send: Send, num_bytes: int) -> None:
        key = Headers(scope=scope).get("authorization", "").removeprefix(_BEARER)
        try:
            await self._client.offer(key)
        except ApiRefusal as refusal:
            problem = problem_of(refusal, with_key=bool(key))
            answer = _refusal(
                problem, refusal.status or 502, refusal.message, refusal.retry_after_s
            )
            await answer(scope, receive, send)
            return
        try:
            with self._uploads.reserve(num_bytes):
                await self._app(scope, receive, send)
        except UploadsFull:
            await _refusal("page_busy", 503)(scope, receive, send)


def _used_at_once(receive: Receive, window: BodyWindow | None) -> Receive:
    """Returns a way to receive that makes room for what comes next as it hands something on."""

    async def receive_used() -> Message:
        message = await receive()
        if window is not None:
            window.used(len(message.get("body", b"")))
        return message

    return receive_used


def _refusal(
    problem: Problem, status: int, detail: str = "", retry_after_s: int | None = None
) -> JSONResponse:
    body = {"problem": problem, "detail": detail, "retry_after_s": retry_after_s}
    return JSONResponse(body, status)
