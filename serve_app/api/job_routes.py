"""Adds the routes of jobs, resumable uploads and usage to the application."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fastapi import FastAPI, Response

from serve_app.api import job_schemas as schemas
from serve_app.api.admission import AdmissionGate
from serve_app.api.endpoints import Endpoints, Work
from serve_app.api.job_creation import JobBackend, JobCreator
from serve_app.api.job_events import JobEventsHandler, JobWatch
from serve_app.api.job_schemas import JobRoute
from serve_app.api.jobs import JobHandler
from serve_app.api.limits import ApiLimits
from serve_app.api.resumable import ResumableUploads, with_version
from serve_app.api.service import TranscriptionService
from serve_app.api.upload import UploadReader
from serve_app.api.usage import UsageHandler


@dataclass(frozen=True, slots=True)
class JobParts:
    """What answers the requests.

    Attributes:
        backend: of the jobs.
        creator: makes jobs.
        handler: answers about jobs.
        watch: follows jobs.
        events: tells of changes.
        uploads: receives recordings in parts.
        usage: answers about usage.
    """

    backend: JobBackend
    creator: JobCreator
    handler: JobHandler
    watch: JobWatch
    events: JobEventsHandler
    uploads: ResumableUploads
    usage: UsageHandler

    async def close(self) -> None:
        """Finishes what is under way, and closes the store."""
        await self.watch.close()
        await self.creator.close()
        await self.uploads.close()
        await self.backend.meter.close()
        await self.backend.store.close()


def job_parts(
    service: TranscriptionService,
    limits: ApiLimits,
    gate: AdmissionGate,
    upload_reader: UploadReader,
    backend: JobBackend,
    logger: logging.Logger,
) -> JobParts:
    """Returns what answers the requests.

    Args:
        service: says what it offers.
        limits: of requests and recordings.
        gate: reserves the bytes of uploads.
        upload_reader: receives recordings.
        backend: of the jobs.
        logger: gets one line per request.
    """
    watch = JobWatch(
        backend.store, logger, max_watchers=backend.max_watchers, period_s=backend.watch_period_s
    )
    return JobParts(
        backend,
        JobCreator(service, limits, gate, upload_reader, backend, logger),
        JobHandler(service, backend),
        watch,
        JobEventsHandler(backend.store, watch, logger),
        ResumableUploads(limits, gate, backend, logger),
        UsageHandler(backend.meter, backend.clock),
    )


def add_job_routes(app: FastAPI, parts: JobParts, logger: logging.Logger) -> None:
    """Adds the routes.

    Args:
        app: the API.
        parts: what answers.
        logger: gets one line per request.
    """
    endpoints = Endpoints(logger)
    jobs, uploads = parts.handler, parts.uploads
    works: tuple[tuple[JobRoute, Work], ...] = (
        (schemas.CREATE_JOB, parts.creator.create),
        (schemas.LIST_JOBS, jobs.list),
        (schemas.GET_JOB, jobs.get),
        (schemas.DELETE_JOB, jobs.delete),
        (schemas.GET_RESULT, jobs.result),
        (schemas.WATCH_JOB, parts.events.events),
        (schemas.CANCEL_JOB, jobs.cancel),
        (schemas.REDELIVER, jobs.redeliver),
        (schemas.DESCRIBE_UPLOADS, uploads.options),
        (schemas.CREATE_UPLOAD, uploads.create),
        (schemas.GET_UPLOAD, uploads.get),
        (schemas.ADD_PART, uploads.patch),
        (schemas.DELETE_UPLOAD, uploads.delete),
        (schemas.GET_USAGE, parts.usage.get),
    )
    for route, work in works:
        endpoint = endpoints.of(route.operation_id, work)
        # Requests and responses are described by hand, as those of a transcription.
        app.add_api_route(
            route.path,
            with_version(endpoint) if route.tag == "uploads" else endpoint,
            methods=[route.method],
            summary=route.summary,
            operation_id=route.operation_id,
            tags=[route.tag],
            openapi_extra=dict(route.request),
            responses=route.responses,
            status_code=min(int(status) for status in route.responses),
            # Without a media type FastAPI adds no content of its own.
            response_class=Response,
            response_model=None,
        )
    app.add_api_route(
        schemas.ADD_PART.path,
        with_version(endpoints.of("overriddenMethod", uploads.post)),
        methods=["POST"],
        include_in_schema=False,
        response_model=None,
    )
