"""The page's routes for jobs: transcriptions that go on when the page is closed.

The browser keeps the ids of its jobs, and names them in each request. Nobody can guess an id, and
the API checks the visitor's key each time.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import BinaryIO
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope

from serve_app.client import ClientError, Job
from serve_app.ui.client import ApiClient, problem_of, refusal_response
from serve_app.ui.events import MAX_EVENT_BYTES, EventRefused, JobOrder, parse_job_order
from serve_app.ui.receiving import BodyBroken, body_length, key_of, read_body
from serve_app.ui.results import transcript_json
from serve_app.ui.uploads import UploadLost, UploadStore
from serve_app.ui.visitors import Visitor

MAX_LISTED = 50
"""Jobs that a browser remembers, and asks for at once."""

_JSON = "application/json"
_JOB = re.compile(r"/jobs/(job_[A-Za-z0-9_-]{1,64})(/result|/cancel)?", re.ASCII)
_ID = re.compile(r"job_[A-Za-z0-9_-]{1,64}", re.ASCII)
_MAX_QUERY_BYTES = 8192
_MAX_CALLS = 8
_GONE = "job_not_found"


class JobRoutes:
    """Makes, lists, opens and ends the jobs that a browser knows.

    Args:
        client: of the API.
        uploads: where recordings are kept until their job is made.
    """

    def __init__(self, client: ApiClient, uploads: UploadStore) -> None:
        self._client = client
        self._uploads = uploads
        self._calls = asyncio.Semaphore(_MAX_CALLS)

    async def answer(
        self, path: str, scope: Scope, receive: Receive, visitor: Visitor
    ) -> Response | None:
        """Returns the response; None for a path or a method that the page does not use."""
        method, headers = scope["method"], Headers(scope=scope)
        key = key_of(headers)
        if key is None:
            return refusal_response("key_refused", 401)
        if path == "/jobs" and method == "GET":
            return await self._refused(key, lambda: self._list(scope, key))
        if path == "/jobs" and method == "POST":
            return await self._create(headers, receive, visitor, key)
        named = _JOB.fullmatch(path)
        if named is None:
            return None
        job_id, what = named.groups()
        if (method, what) == ("GET", "/result"):
            return await self._refused(key, lambda: self._result(job_id, key))
        if (method, what) == ("DELETE", None):
            return await self._refused(key, lambda: self._delete(job_id, key))
        if (method, what) == ("POST", "/cancel"):
            # Other sites' pages cannot send this type without asking first.
            if headers.get("content-type") != _JSON:
                return refusal_response("refused", 415, f"send {_JSON}")
            return await self._refused(key, lambda: self._cancel(job_id, key))
        return None

    async def _create(
        self, headers: Headers, receive: Receive, visitor: Visitor, key: str
    ) -> Response:
        if headers.get("content-type") != _JSON:
            return refusal_response("refused", 415, f"send {_JSON}")
        num_bytes = body_length(headers)
        if num_bytes is None:
            return refusal_response("refused", 411, "Content-Length is missing or wrong")
        if num_bytes > MAX_EVENT_BYTES:
            return refusal_response("refused", 413, f"at most {MAX_EVENT_BYTES} bytes")
        try:
            asked = parse_job_order(await read_body(receive, num_bytes))
            owner = f"job of {visitor.id}"
            self._uploads.claim(visitor, owner, asked.upload)
            with self._uploads.taken(owner, asked.upload) as file:
                return await self._refused(key, lambda: self._made(file, asked, key))
        except (EventRefused, BodyBroken) as error:
            return refusal_response("refused", 400, str(error))
        except TimeoutError:
            return refusal_response("refused", 408, "the request arrived too slowly")
        except UploadLost:
            return refusal_response("upload_lost", 409)

    async def _made(self, file: BinaryIO, asked: JobOrder, key: str) -> Response:
        job = await self._client.create_job(file, asked.order, asked.name, key)
        return JSONResponse(job_json(job))

    async def _list(self, scope: Scope, key: str) -> Response:
        query: bytes = scope.get("query_string", b"")
        ids = parse_qs(query[:_MAX_QUERY_BYTES].decode("latin-1")).get("id", [])
        wanted = [one for one in dict.fromkeys(ids) if _ID.fullmatch(one)][:MAX_LISTED]
        found = await asyncio.gather(*(self._state(one, key) for one in wanted))
        return JSONResponse({"jobs": found})

    async def _state(self, job_id: str, key: str) -> dict[str, object]:
        async with self._calls:
            try:
                return job_json(await self._client.job(job_id, key))
            except ClientError as error:
                if error.code != _GONE:
                    raise
                return {"id": job_id, "status": "gone"}

    async def _result(self, job_id: str, key: str) -> Response:
        async with self._calls:
            transcript = await self._client.job_result(job_id, key)
        # It may be some MB, of an hour of speech.
        body = await asyncio.to_thread(lambda: json.dumps(transcript_json(transcript)).encode())
        return Response(body, media_type=_JSON)

    async def _cancel(self, job_id: str, key: str) -> Response:
        return JSONResponse(job_json(await self._client.cancel_job(job_id, key)))

    async def _delete(self, job_id: str, key: str) -> Response:
        try:
            await self._client.delete_job(job_id, key)
        except ClientError as error:
            if error.code != _GONE:
                raise
        return JSONResponse({"id": job_id, "status": "gone"})

    async def _refused(self, key: str, call: Callable[[], Awaitable[Response]]) -> Response:
        """Returns the response, or why the API refuses."""
        try:
            return await call()
        except ClientError as refusal:
            problem = problem_of(refusal, with_key=bool(key))
            return refusal_response(
                problem, refusal.status or 502, refusal.message, refusal.retry_after_s
            )


def job_json(job: Job) -> dict[str, object]:
    """Returns what the page's script reads of a job."""
    return {
        "id": job.id,
        "status": job.status,
        "percent": round(job.progress.percent),
        "position": job.position,
        "detail": job.error.message if job.error is not None else "",
    }
