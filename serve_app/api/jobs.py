"""Answers the requests about jobs that exist: a list, one, its result, its end, its removal."""

from __future__ import annotations

import asyncio

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from serve_app.api.auth import caller_of
from serve_app.api.body import RequestBody
from serve_app.api.endpoints import EndpointLog
from serve_app.api.headers import WARNING_HEADER, add_warning_headers, text_header
from serve_app.api.job_creation import JobBackend
from serve_app.api.job_fields import job_id_of, page_request_of
from serve_app.api.job_requests import (
    REQUEST_FILE,
    JobRequest,
    parse_result_fields,
    read_job_request,
)
from serve_app.api.parameters import TranscriptionParameters
from serve_app.api.response_models import JobList, JobRemoval
from serve_app.api.responses import check_transcript, render
from serve_app.api.service import TranscriptionService
from serve_app.api.upload import with_query
from serve_app.core.job_errors import JobNotFinished, JobNotFound, JobWithoutResult
from serve_app.jobs.job_json import job_json
from serve_app.jobs.records import Job
from serve_app.packs.registry import demo_warning, is_demo_pack
from serve_app.transcript.transcript_json import transcript_from_json


class JobHandler:
    """Answers requests about jobs; a job of another key is as one that does not exist.

    Args:
        service: has the defaults of results.
        backend: of the jobs.
    """

    def __init__(self, service: TranscriptionService, backend: JobBackend) -> None:
        self._service = service
        self._store = backend.store
        self._files = backend.files

    async def list(self, request: Request, log: EndpointLog) -> Response:
        asked = page_request_of(request)
        page = await self._store.list(
            caller_of(request).name, statuses=asked.statuses, after=asked.after, limit=asked.limit
        )
        answer: JobList = {
            "object": "list",
            "data": [job_json(job) for job in page.jobs],
            "first_id": page.jobs[0].id if page.jobs else None,
            "last_id": page.jobs[-1].id if page.jobs else None,
            "has_more": page.has_more,
        }
        return JSONResponse(answer)

    async def get(self, request: Request, log: EndpointLog) -> Response:
        job = await self._job(request, log)
        return JSONResponse(job_json(job, await self._store.position(job)))

    async def cancel(self, request: Request, log: EndpointLog) -> Response:
        log.subject = job_id_of(request)
        await _discard_body(request)
        job = await self._store.cancel(caller_of(request).name, log.subject)
        return JSONResponse(job_json(job))

    async def redeliver(self, request: Request, log: EndpointLog) -> Response:
        log.subject = job_id_of(request)
        await _discard_body(request)
        job = await self._store.redeliver(caller_of(request).name, log.subject)
        return JSONResponse(job_json(job))

    async def delete(self, request: Request, log: EndpointLog) -> Response:
        """Removes a job for good.

        Files go first: after a failure the job is still there, and can be deleted again. It is
        canceled before, so that no runner writes new ones.
        """
        job_id = log.subject = job_id_of(request)
        key = caller_of(request).name
        await _discard_body(request)
        job = await self._store.cancel(key, job_id)
        await self._files.delete_all(job_id)
        if job.upload_id is not None:
            await self._files.delete_all(job.upload_id)
        await self._store.delete(key, job_id)
        answer: JobRemoval = {"id": job_id, "object": "transcription.job", "deleted": True}
        return JSONResponse(answer)

    async def result(self, request: Request, log: EndpointLog) -> Response:
        job = await self._job(request, log)
        if not job.is_final:
            raise JobNotFinished(job.status)
        if job.result is None:
            why = "" if job.error is None else f"{job.error.message} ({job.error.code})"
            raise JobWithoutResult(job.status, why)
        try:
            document = await self._files.get_bytes(f"{job.id}/{REQUEST_FILE}")
            asked = read_job_request(document)
            sent = with_query({}, request)
            parameters = parse_result_fields(asked, sent, self._service.offer)
            content = await self._files.get_bytes(job.result)
        except FileNotFoundError:
            # It was removed since its row was read.
            raise JobNotFound(job.id) from None
        return await asyncio.to_thread(_rendered, content, asked, parameters)

    async def _job(self, request: Request, log: EndpointLog) -> Job:
        log.subject = job_id_of(request)
        return await self._store.get(caller_of(request).name, log.subject)


def _rendered(content: bytes, asked: JobRequest, parameters: TranscriptionParameters) -> Response:
    transcript = transcript_from_json(content)
    check_transcript(transcript, parameters.response_format)
    response = render(transcript, parameters)
    if is_demo_pack(asked.model):
        response.headers.append(WARNING_HEADER, text_header(demo_warning(asked.model)))
    add_warning_headers(response, (), [str(one) for one in parameters.warnings])
    return response


async def _discard_body(request: Request) -> None:
    """Reads what no one needs, so that the connection can be used again."""
    body = RequestBody(request)
    try:
        await body.discard()
    finally:
        body.close()
