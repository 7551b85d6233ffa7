"""The page's upload route: the raw body of the request becomes one unnamed file."""

from __future__ import annotations

import asyncio
from typing import BinaryIO

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope

from serve_app.client import ClientError
from serve_app.ui.client import ApiClient, problem_of, refusal_response
from serve_app.ui.uploads import UploadsFull, UploadStore
from serve_app.ui.visitors import Visitor

_TYPE = "application/octet-stream"
_BEARER = "Bearer "
# Above any key's length; what is longer is not sent to the API.
_MAX_KEY_CHARACTERS = 256
_MAX_CHECKS = 32
# A visitor who sends less takes room from others for nothing.
_MIN_BYTES_PER_S = 16 * 1024
_GRACE_S = 60.0
_IDLE_S = 30.0


class BodyBroken(Exception):
    """A body did not come as its headers said."""


class UploadRoute:
    """Takes recordings in.

    The body is the recording and nothing else: there is no form whose parts, names or
    boundaries could be anything. The API is asked about the user's key before a byte of it
    is read.

    Args:
        uploads: where recordings lie.
        client: of the API.
        max_bytes: of one recording.
    """

    def __init__(self, uploads: UploadStore, client: ApiClient, max_bytes: int) -> None:
        self._uploads = uploads
        self._client = client
        self._max_bytes = max_bytes
        self._checks = asyncio.Semaphore(_MAX_CHECKS)

    async def answer(self, scope: Scope, receive: Receive, visitor: Visitor) -> Response:
        """Returns the response: the upload's name, or why there is none."""
        headers = Headers(scope=scope)
        if headers.get("content-type") != _TYPE:
            return refusal_response("upload_failed", 415, f"send the recording as {_TYPE}")
        num_bytes = body_length(headers)
        if num_bytes is None:
            return refusal_response("upload_failed", 411, "Content-Length is missing or wrong")
        if num_bytes == 0:
            return refusal_response("upload_failed", 400, "the file is empty")
        if num_bytes > self._max_bytes:
            return refusal_response("too_large", 413)
        refused = await self._refused_key(headers)
        if refused is not None:
            return refused
        return await self._store(receive, visitor, num_bytes)

    async def _refused_key(self, headers: Headers) -> Response | None:
        key = headers.get("authorization", "").removeprefix(_BEARER).strip()
        if len(key) > _MAX_KEY_CHARACTERS or not key.isascii():
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
