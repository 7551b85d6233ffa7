"""The page's own routes for uploads and subtitle files.

The raw body of an upload becomes one unnamed file. A subtitle file is rendered from the
transcript that the visitor edited. Both check the visitor's API key before they read the body.
"""

from __future__ import annotations

import asyncio
from typing import BinaryIO

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope

from serve_app.client import ClientError
from serve_app.settings.subtitles import SubtitleSettings
from serve_app.ui.client import ApiClient, problem_of, refusal_response
from serve_app.ui.subtitle_files import render_subtitles
from serve_app.ui.uploads import UploadsFull, UploadStore
from serve_app.ui.visitors import Visitor

_TYPE = "application/octet-stream"
_JSON = "application/json"
# Five hours of speech are about 3 MB with the times of all words.
MAX_TRANSCRIPT_BYTES = 8 * 2**20
_BEARER = "Bearer "
# Above any key's length; what is longer is not sent to the API.
_MAX_KEY_CHARACTERS = 256
_MAX_CHECKS = 32
_MAX_RENDERINGS = 8
# A visitor who sends less takes room from others for nothing.
_MIN_BYTES_PER_S = 16 * 1024
_GRACE_S = 60.0
_IDLE_S = 30.0


class BodyBroken(Exception):
    """A body did not come as its headers said."""


class KeyCheck:
    """Asks the API whether it accepts a request's key.

    Args:
        client: of the API.
    """

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._checks = asyncio.Semaphore(_MAX_CHECKS)

    async def refusal(self, headers: Headers) -> Response | None:
        """Returns the refusal of a key that the API does not accept; None for one that it does."""
        key = key_of(headers)
        if key is None:
            return refusal_response("key_refused", 401)
        if self._checks.locked():
            return refusal_response("page_busy", 503, retry_after_s=1)
        try:
            async with self._checks:
                await self._client.offer(key)
        except ClientError as refusal:
            problem = problem_of(refusal, with_key=bool(key))
            return refusal_response(
                problem, refusal.status or 502, refusal.message, refusal.retry_after_s
            )
        return None


class SubtitleRoute:
    """Renders subtitle files, one at a time.

    Args:
        keys: checks API keys.
        defaults: how the service divides subtitles.
    """

    def __init__(self, keys: KeyCheck, defaults: SubtitleSettings) -> None:
        self._keys = keys
        self._defaults = defaults
        # Each may hold a transcript in memory.
        self._requests = asyncio.Semaphore(_MAX_RENDERINGS)
        self._rendering = asyncio.Semaphore(1)

    async def answer(self, scope: Scope, receive: Receive) -> Response:
        """Returns the response: the file, or a refusal."""
        headers = Headers(scope=scope)
        if headers.get("content-type") != _JSON:
            return refusal_response("render_failed", 415, f"send the transcript as {_JSON}")
        num_bytes = body_length(headers)
        if num_bytes is None:
            return refusal_response("render_failed", 411, "Content-Length is missing or wrong")
        if num_bytes > MAX_TRANSCRIPT_BYTES:
            limit = f"a transcript may have at most {MAX_TRANSCRIPT_BYTES} bytes"
            return refusal_response("render_failed", 413, limit)
        refused = await self._keys.refusal(headers)
        if refused is not None:
            return refused
        if self._requests.locked():
            return refusal_response("page_busy", 503, retry_after_s=1)
        async with self._requests:
            try:
                body = await read_body(receive, num_bytes)
                async with self._rendering:
                    content = await asyncio.to_thread(render_subtitles, body, self._defaults)
            except TimeoutError:
                return refusal_response("render_failed", 408, "the transcript arrived too slowly")
            except BodyBroken as error:
                return refusal_response("render_failed", 400, str(error))
            except ValueError:
                return refusal_response("render_failed", 400, "the body is not a transcript")
        return PlainTextResponse(content)


class UploadRoute:
    """Accepts recordings.

    The body is the recording and nothing else: there is no form to parse. The API is asked
    about the visitor's key before a byte of the body is read.

    Args:
        uploads: where recordings are kept.
        keys: checks API keys.
        max_bytes: of one recording.
    """

    def __init__(self, uploads: UploadStore, keys: KeyCheck, max_bytes: int) -> None:
        self._uploads = uploads
        self._keys = keys
        self._max_bytes = max_bytes

    async def answer(self, scope: Scope, receive: Receive, visitor: Visitor) -> Response:
        """Returns the response: the upload's id, or a refusal."""
        headers = Headers(scope=scope)
        if headers.get("content-type") != _TYPE:
            return refusal_response("upload_failed", 415, f"send the recording as {_TYPE}")
        num_bytes = body_length(headers)
        if num_bytes is None:
            return refusal_response("upload_failed", 411, "Content-Length is missing or wrong")
        if num_bytes == 0:
            return refusal_response("empty_file", 400, "the file is empty")
        if num_bytes > self._max_bytes:
            return refusal_response("too_large", 413)
        refused = await self._keys.refusal(headers)
        if refused is not None:
            return refused
        return await self._store(receive, visitor, num_bytes)

    async def _store(self, receive: Receive, visitor: Visitor, num_bytes: int) -> Response:
        try:
            with self._uploads.receiving(visitor, num_bytes) as upload:
                async with asyncio.timeout(_GRACE_S + num_bytes / _MIN_BYTES_PER_S):
                    await _copy(receive, upload.file, num_bytes)
                self._uploads.complete(upload)
        except UploadsFull:
            return refusal_response("page_busy", 503)
        except OSError as error:
            if isinstance(error, TimeoutError):
                return refusal_response("upload_failed", 408, "the file arrived too slowly")
            return refusal_response("page_busy", 503, "the page's disk is full")
        except BodyBroken as error:
            return refusal_response("upload_failed", 400, str(error))
        return JSONResponse({"upload": upload.id})


def key_of(headers: Headers) -> str | None:
    """Returns the visitor's API key, "" for none; None if it is not one."""
    key = headers.get("authorization", "").removeprefix(_BEARER).strip()
    return None if len(key) > _MAX_KEY_CHARACTERS or not key.isascii() else key


def body_length(headers: Headers) -> int | None:
    """Returns what a request says of its body's length; None if that is not one number."""
    lengths = headers.getlist("content-length")
    if len(lengths) != 1 or not lengths[0].isascii() or not lengths[0].isdecimal():
        return None
    # A number of more digits is no length, and costs time to read.
    return int(lengths[0]) if len(lengths[0]) < 20 else None


async def read_body(receive: Receive, num_bytes: int) -> bytes:
    """Returns a small body.

    Raises:
        BodyBroken: it is longer or shorter than was said.
        TimeoutError: it does not come.
    """
    body = bytearray()
    async with asyncio.timeout(_IDLE_S):
        more = True
        while more:
            block, more = await _next(receive)
            body += block
            if len(body) > num_bytes:
                raise BodyBroken("the body is longer than Content-Length says")
    if len(body) != num_bytes:
        raise BodyBroken("the body is shorter than Content-Length says")
    return bytes(body)


async def _copy(receive: Receive, file: BinaryIO, num_bytes: int) -> None:
    num_copied = 0
    more = True
    while more:
        async with asyncio.timeout(_IDLE_S):
            block, more = await _next(receive)
        num_copied += len(block)
        if num_copied > num_bytes:
            raise BodyBroken("the body is longer than Content-Length says")
        # The disk may be slow; the event loop has others to serve.
        await asyncio.to_thread(file.write, block)
    if num_copied != num_bytes:
        raise BodyBroken("the body is shorter than Content-Length says")


async def _next(receive: Receive) -> tuple[bytes, bool]:
    message = await receive()
    if message["type"] != "http.request":
        raise BodyBroken("the connection was closed")
    return message.get("body", b""), bool(message.get("more_body", False))
