"""The middleware in front of Gradio: passes only the routes and events that the page needs.

All requests are bounded. The work of a visitor who leaves the page is canceled.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from urllib.parse import parse_qs, urlencode

from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.api.flow_control import FlowControl, flow_control_of
from serve_app.ui.captions import CaptionRoute
from serve_app.ui.client import refusal_response
from serve_app.ui.events import (
    MAX_EVENT_BYTES,
    EventRefused,
    SentEvent,
    ValueCheck,
    parse_cancel,
    parse_event,
    session_name,
)
from serve_app.ui.job_routes import JobRoutes
from serve_app.ui.receiving import (
    BodyBroken,
    SubtitleRoute,
    UploadRoute,
    body_length,
    read_body,
)
from serve_app.ui.sessions import Sessions, SessionUnknown, TooManyRequests
from serve_app.ui.uploads import UploadLost, UploadStore
from serve_app.ui.visitors import Visitor, new_cookie, visitor_of

# Gradio serves much more: files by path, a proxy, recordings of runs, uploads and an API of
# its own. No segment of an asset's path begins with a dot, so that none leads upwards.
_PAGE = re.compile(r"/(config|theme\.css|favicon\.ico|manifest\.json|gradio_api/theme\.css)?")
_ASSET = re.compile(r"/(assets|static|svelte)(/[\w@~+-][\w@~+.-]*)+", re.ASCII)
_STARTUP = "/gradio_api/startup-events"
_HEARTBEAT = "/gradio_api/heartbeat/"
_RESULTS = "/gradio_api/queue/data"
_JOIN = "/gradio_api/queue/join"
_CANCEL = "/gradio_api/cancel"
_RESET = "/gradio_api/reset"
_UPLOAD = "/upload"
_SUBTITLES = "/subtitles"
_SAMPLE = "/sample"
_CAPTURE = "/capture.js"
_CAPTIONS = "/captions"
_JOBS = "/jobs"
# Gradio needs these for its own address; it gets no ranges, cookies or keys.
_FORWARDED_HEADERS = frozenset(
    {
        b"host",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"accept",
        b"accept-encoding",
        b"if-none-match",
        b"if-modified-since",
    }
)
_MAX_QUERY_BYTES = 1024
_RETRY_AFTER_S = 5
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


class _Answered(Exception):
    """A request gets this response and does not reach Gradio."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


class PageGate:
    """Passes what the page needs, rewritten from its validated parts.

    Args:
        app: Gradio.
        functions: of Gradio that the page calls, each with the checks of its inputs.
        uploads: where recordings lie.
        upload_route: accepts recordings.
        subtitle_route: renders subtitle files.
        job_routes: make, list and open jobs.
        sample: a recording to try the service with.
        capture: script of the audio thread, for live captions.
        captions: relays them; None where the service has none.
        sessions: pages that are open.
        visits: are ended when a page is closed, which ends its heartbeat request.
    """

    def __init__(
        self,
        app: ASGIApp,
        functions: Mapping[int, tuple[ValueCheck, ...]],
        uploads: UploadStore,
        upload_route: UploadRoute,
        subtitle_route: SubtitleRoute,
        job_routes: JobRoutes,
        sample: bytes,
        capture: bytes,
        captions: CaptionRoute | None,
        sessions: Sessions,
        visits: Visits,
    ) -> None:
        self._app = app
        self._functions = functions
        self._uploads = uploads
        self._upload_route = upload_route
        self._subtitle_route = subtitle_route
        self._job_routes = job_routes
        self._sample = sample
        self._capture = capture
        self._captions = captions
        self._sessions = sessions
        self._visits = visits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "http":
            await self._guarded(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The cookie is not sent by other sites' pages, and the key is in the first message.
        visitor = visitor_of(Headers(scope=scope))
        if self._captions is not None and visitor is not None and _path(scope) == _CAPTIONS:
            with suppress(SessionUnknown, TooManyRequests):
                self._sessions.count_event(visitor)
                await self._captions.answer(visitor, scope, receive, send)
                return
        await receive()
        await send({"type": "websocket.close", "code": 1008})

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _path(scope)
        headers = dict(_HEADERS)
        if path == "/" and visitor_of(Headers(scope=scope)) is None:
            # A cookie in a cache on the way would make many browsers one visitor.
            headers |= {"Set-Cookie": new_cookie(scope), "Cache-Control": "no-store"}

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        receive = _released_at_once(receive, flow_control_of(scope))
        try:
            await self._route(path, scope, receive, send_guarded)
        except _Answered as answered:
            await answered.response(scope, receive, send_guarded)

    async def _route(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        if method == "POST" and path in (_UPLOAD, _SUBTITLES, _JOIN, _CANCEL, _RESET):
            await self._post(path, scope, receive, send)
        elif method == "GET" and path.startswith(_HEARTBEAT):
            await self._heartbeat(path.removeprefix(_HEARTBEAT), scope, receive, send)
        elif path == _JOBS or path.startswith(f"{_JOBS}/"):
            await self._jobs(path, scope, receive)
        elif method == "GET" and path == _SAMPLE:
            raise _Answered(Response(self._sample, media_type="audio/flac"))
        elif method == "GET" and path == _CAPTURE:
            raise _Answered(Response(self._capture, media_type="text/javascript"))
        elif method == "GET" and path == _RESULTS:
            await self._results(scope, receive, send)
        elif (method == "GET" and (_PAGE.fullmatch(path) or _ASSET.fullmatch(path))) or (
            (method, path) in (("HEAD", "/"), ("GET", _STARTUP))
        ):
            await self._app(_rewritten(scope, path), receive, send)
        else:
            raise _Answered(_not_found())

    async def _heartbeat(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        visitor = _visitor(scope)
        session = visitor.session(_session(name))
        with _refusals(), self._sessions.open(visitor, session):
            try:
                await self._app(_rewritten(scope, f"{_HEARTBEAT}{session}"), receive, send)
            finally:
                self._visits.leave(session)
                self._uploads.leave(session)

    async def _results(self, scope: Scope, receive: Receive, send: Send) -> None:
        visitor = _visitor(scope)
        query: bytes = scope.get("query_string", b"")
        names = parse_qs(query[:_MAX_QUERY_BYTES].decode("latin-1")).get("session_hash", [""])
        session = visitor.session(_session(names[-1]))
        with _refusals(), self._sessions.stream(visitor, session):
            query = urlencode({"session_hash": session}).encode()
            await self._app(_rewritten(scope, _RESULTS, query=query), receive, send)

    async def _jobs(self, path: str, scope: Scope, receive: Receive) -> None:
        visitor = _visitor(scope)
        with _refusals():
            self._sessions.count_event(visitor)
        answer = await self._job_routes.answer(path, scope, receive, visitor)
        raise _Answered(answer or _not_found())

    async def _post(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        visitor = _visitor(scope)
        if path in (_UPLOAD, _SUBTITLES):
            with _refusals():
                self._sessions.count_event(visitor)
            if path == _UPLOAD:
                raise _Answered(await self._upload_route.answer(scope, receive, visitor))
            raise _Answered(await self._subtitle_route.answer(scope, receive))
        body = await _event_body(scope, receive)
        if path == _RESET:
            # It does nothing in Gradio either.
            raise _Answered(JSONResponse({"success": True}))
        try:
            if path == _CANCEL:
                await self._cancel(visitor, body, scope, receive, send)
            else:
                event = parse_event(body, self._functions)
                await self._join(visitor, event, scope, receive, send)
        except EventRefused as error:
            raise _Answered(refusal_response("refused", 400, str(error))) from None

    async def _cancel(
        self, visitor: Visitor, body: bytes, scope: Scope, receive: Receive, send: Send
    ) -> None:
        canceled = parse_cancel(body)
        session = visitor.session(canceled.session)
        self._uploads.leave(session)
        written = canceled.body(session)
        await self._app(_rewritten(scope, _CANCEL, body=written), _sent(written, receive), send)

    async def _join(
        self, visitor: Visitor, event: SentEvent, scope: Scope, receive: Receive, send: Send
    ) -> None:
        session = visitor.session(event.session)
        with _refusals():
            await self._sessions.admit_event(visitor, session)
            if event.upload is not None:
                self._uploads.claim(visitor, session, event.upload)

        async def send_joined(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] != 200:
                # The queue is full: the browser uploads the recording again if the user retries.
                self._uploads.leave(session)
            await send(message)

        written = event.body(session)
        await self._app(
            _rewritten(scope, _JOIN, body=written), _sent(written, receive), send_joined
        )


def _path(scope: Scope) -> str:
    """Returns a request's path under the page. Serve puts its prefix into both."""
    return str(scope["path"]).removeprefix(str(scope.get("root_path", ""))) or "/"


def _rewritten(scope: Scope, path: str, *, query: bytes = b"", body: bytes | None = None) -> Scope:
    """Returns a request for Gradio: only what is named here is from the caller."""
    whole = f"{scope.get('root_path', '')}{path}"
    headers = [(name, value) for name, value in scope["headers"] if name in _FORWARDED_HEADERS]
    if body is not None:
        headers += [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
    return {
        **scope,
        "path": whole,
        "raw_path": whole.encode(),
        "query_string": query,
        "headers": headers,
    }


def _sent(body: bytes, receive: Receive) -> Receive:
    """Returns a `receive` that yields this body first."""
    is_sent = False

    async def receive_sent() -> Message:
        nonlocal is_sent
        if is_sent:
            return await receive()
        is_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_sent


def _released_at_once(receive: Receive, window: FlowControl | None) -> Receive:
    """Returns `receive` with flow control that requests more data as soon as a block is read."""

    async def receive_used() -> Message:
        message = await receive()
        if window is not None:
            window.used(len(message.get("body", b"")))
        return message

    return receive_used


async def _event_body(scope: Scope, receive: Receive) -> bytes:
    headers = Headers(scope=scope)
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise _Answered(refusal_response("refused", 415, "send events as application/json"))
    num_bytes = body_length(headers)
    if num_bytes is None:
        raise _Answered(refusal_response("refused", 411, "Content-Length is missing or wrong"))
    if num_bytes > MAX_EVENT_BYTES:
        raise _Answered(
            refusal_response("refused", 413, f"an event may have at most {MAX_EVENT_BYTES} bytes")
        )
    try:
        return await read_body(receive, num_bytes)
    except TimeoutError:
        raise _Answered(refusal_response("refused", 408, "the event arrived too slowly")) from None
    except BodyBroken as error:
        raise _Answered(refusal_response("refused", 400, str(error))) from None


def _visitor(scope: Scope) -> Visitor:
    visitor = visitor_of(Headers(scope=scope))
    if visitor is None:
        raise _unknown_page()
    return visitor


def _session(name: str) -> str:
    try:
        return session_name(name)
    except EventRefused as error:
        raise _Answered(refusal_response("refused", 400, str(error))) from None


def _not_found() -> Response:
    return JSONResponse({"detail": "not found"}, 404)


def _unknown_page() -> _Answered:
    return _Answered(refusal_response("page_unknown", 403))


@contextmanager
def _refusals() -> Iterator[None]:
    """Turns errors about a visitor's request into responses."""
    try:
        yield
    except SessionUnknown:
        raise _unknown_page() from None
    except TooManyRequests:
        response = refusal_response("page_busy", 429, retry_after_s=_RETRY_AFTER_S)
        raise _Answered(response) from None
    except UploadLost:
        raise _Answered(refusal_response("upload_lost", 409)) from None


class Visits:
    """The runs of each open page, by the name that Gradio gives it. For one event loop."""

    def __init__(self) -> None:
        self._runs: dict[str, set[asyncio.Event]] = {}

    @contextmanager
    def run(self, visit: str) -> Iterator[asyncio.Event]:
        """Yields an event that is set when the visitor leaves."""
        left = asyncio.Event()
        self._runs.setdefault(visit, set()).add(left)
        try:
            yield left
        finally:
            self._runs[visit].discard(left)
            if not self._runs[visit]:
                del self._runs[visit]

    def leave(self, visit: str) -> None:
        """Ends the runs of a page that was closed."""
        for left in self._runs.get(visit, ()):
            left.set()
