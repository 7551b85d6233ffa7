"""The routes, and what every request goes through on its way."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import ExitStack, aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from serve_app import __version__
from serve_app.api import openapi
from serve_app.api.errors import (
    STATUS_OF,
    error_body,
    error_response,
    internal_error_response,
    on_http_exception,
)
from serve_app.api.parameters import TranscriptionParameters, parse_parameters
from serve_app.api.rendering import render, sse_error, sse_events
from serve_app.api.request_log import RequestLog, request_id_of
from serve_app.api.service import TranscriptionJob, TranscriptionService
from serve_app.api.uploads import Upload, receive_upload
from serve_app.core.chunks import RecordingEnd
from serve_app.core.errors import DeadlineExceeded, ParaserveError, RecognitionFailed
from serve_app.core.origin import Origin
from serve_app.core.transcripts import FailedRange, TranscriptEvent, collect

_CLIENT_CLOSED_REQUEST = 499
_FIRST_SERVER_ERROR = 500
_DISCARD_S = 10.0


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """Bounds that the routes enforce.

    Attributes:
        max_upload_bytes: largest file.
        request_timeout_s: deadline of a request, counted from its last byte.
        spool_dir: where uploads are spooled, None for the system's directory.
    """

    max_upload_bytes: int
    request_timeout_s: float
    spool_dir: Path | None


def build_api(service: TranscriptionService, limits: ApiLimits, logger: logging.Logger) -> FastAPI:
    """Returns the ASGI application over a service."""
    app = FastAPI(
        title="Paraserve",
        version=__version__,
        description="Long Mandarin speech to punctuated, timed text.",
    )
    handler = _TranscriptionHandler(service, limits, logger)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.post(
        "/v1/audio/transcriptions",
        summary="Transcribe a recording",
        openapi_extra=openapi.TRANSCRIPTION_REQUEST,
        responses=openapi.TRANSCRIPTION_RESPONSES,
        response_model=None,
    )(handler.transcribe)

    @app.get("/v1/models", summary="List the models that are served")
    async def list_models() -> dict[str, Any]:
        names = [service.offer.model, *service.offer.model_aliases]
        return {"object": "list", "data": [_model_object(name) for name in names]}

    @app.get("/v1/models/{name}", summary="Describe a model", response_model=None)
    async def get_model(name: str) -> Response:
        try:
            parse_parameters({"model": [name]}, service.offer)
        except ParaserveError as error:
            return error_response(error)
        return JSONResponse(_model_object(name))

    @app.get("/healthz", summary="Whether the process answers")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="Whether every deployment has warmed up", response_model=None)
    async def ready() -> Response:
        try:
            stages = await service.readiness()
        except ParaserveError as error:
            return error_response(error)
        return JSONResponse(
            {
                "status": "ready",
                "stages": {
                    entry.stage: {
                        "device": entry.device,
                        "pack": entry.pack,
                        "checksum": entry.checksum,
                    }
                    for entry in stages
                },
            }
        )

    return app


def _model_object(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "paraserve"}


class _TranscriptionHandler:
    def __init__(
        self, service: TranscriptionService, limits: ApiLimits, logger: logging.Logger
    ) -> None:
        self._service = service
        self._limits = limits
        self._logger = logger

    async def transcribe(self, request: Request) -> Response:
        log = RequestLog(request_id_of(request), time.monotonic())
        try:
            response = await self._respond(request, log)
        except ParaserveError as error:
            response = self._refuse(error, log)
        except ClientDisconnect:
            log.code = "client_disconnected"
            response = Response(status_code=_CLIENT_CLOSED_REQUEST)
        except Exception:
            self._logger.exception(
                "request failed unexpectedly", extra={"paraserve_request_id": log.request_id}
            )
            log.code = "internal_error"
            response = internal_error_response()
        log.status = response.status_code
        if not isinstance(response, StreamingResponse):
            log.write(self._logger)
        return response

    async def _respond(self, request: Request, log: RequestLog) -> Response:
        with ExitStack() as stack:
            upload = stack.enter_context(await self._receive(request))
            log.upload_bytes = upload.size_bytes
            parameters = parse_parameters(upload.fields, self._service.offer)
            log.stages = ",".join(sorted(parameters.stages))
            events = self._events(upload, parameters, log)
            if not parameters.stream:
                return await _unless_disconnected(request, self._answer(events, parameters))
            # Until the first event is there, an error can be told by its status.
            first = await anext(events)
            body = self._stream(_prepend(first, events), stack.pop_all(), log)
            return StreamingResponse(
                body, media_type="text/event-stream", headers={"Cache-Control": "no-store"}
            )

    def _refuse(self, error: ParaserveError, log: RequestLog) -> Response:
        log.code = error.code
        if STATUS_OF[type(error)] >= _FIRST_SERVER_ERROR:
            self._logger.error(
                "request failed",
                extra={"paraserve_request_id": log.request_id, "error": str(error)},
            )
        return error_response(error)

    async def _receive(self, request: Request) -> Upload:
        length = request.headers.get("content-length", "")
        body = request.stream()
        try:
            return await receive_upload(
                body,
                request.headers.get("content-type"),
                int(length) if length.isdecimal() else None,
                max_bytes=self._limits.max_upload_bytes,
                spool_dir=self._limits.spool_dir,
            )
        except ParaserveError:
            await _discard(body, self._limits.max_upload_bytes)
            raise

    async def _answer(
        self, events: AsyncIterator[TranscriptEvent], parameters: TranscriptionParameters
    ) -> Response:
        transcript = await collect(events)
        if transcript.failures and not transcript.sentences:
            raise RecognitionFailed(transcript.failures[0].error)
        return render(transcript, parameters)

    async def _stream(
        self, events: AsyncGenerator[TranscriptEvent], upload: ExitStack, log: RequestLog
    ) -> AsyncGenerator[str]:
        """Yields server-sent events; closes the upload and writes the log at the end."""
        try:
            async with aclosing(events):
                async for event in sse_events(events):
                    yield event
        except ParaserveError as error:
            log.code = error.code
            yield sse_error(error_body(error))
        except Exception:
            self._logger.exception(
                "stream failed unexpectedly", extra={"paraserve_request_id": log.request_id}
            )
            log.code = "internal_error"
            yield sse_error(error_body(ParaserveError("the service failed")))
        finally:
            upload.close()
            log.write(self._logger)

    async def _events(
        self, upload: Upload, parameters: TranscriptionParameters, log: RequestLog
    ) -> AsyncGenerator[TranscriptEvent]:
        timeout_s = self._limits.request_timeout_s
        origin = Origin(log.request_id, deadline=time.time() + timeout_s)
        job = TranscriptionJob(origin, upload.content(), parameters.stages)
        deadline = asyncio.get_running_loop().time() + timeout_s
        async with aclosing(self._service.transcribe(job)) as events:
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        event = await anext(events)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    raise DeadlineExceeded(timeout_s) from None
                if isinstance(event, RecordingEnd):
                    log.audio_s = event.duration_ms / 1000
                    log.num_chunks = len(event.utterances)
                elif isinstance(event, FailedRange):
                    log.num_failed_ranges += 1
                yield event


async def _prepend(
    first: TranscriptEvent, rest: AsyncGenerator[TranscriptEvent]
) -> AsyncGenerator[TranscriptEvent]:
    async with aclosing(rest):
        yield first
        async for event in rest:
            yield event


async def _unless_disconnected(request: Request, answer: Coroutine[Any, Any, Response]) -> Response:
    """Waits for the answer, or cancels it when the caller goes away.

    Raises:
        ClientDisconnect: the caller went away.
    """
    answering = asyncio.create_task(answer)
    leaving = asyncio.create_task(_disconnection(request))
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if answering.cancelled():
            # Not by the caller: the stages behind the ingress gave the work up.
            raise RecognitionFailed("the work was given up inside the service")
        if answering.done():
            return answering.result()
        raise ClientDisconnect
    finally:
        leaving.cancel()
        answering.cancel()
        await asyncio.wait({answering, leaving})


async def _disconnection(request: Request) -> None:
    """Returns when the caller has gone; the body must have been read to its end."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _discard(body: AsyncIterator[bytes], max_bytes: int) -> None:
    """Reads on for a while after an upload was refused.

    Closing a connection with unread data resets it, and most clients then report
    the reset instead of the answer.
    """
    discarded_bytes = 0
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(_DISCARD_S):
            async for data in body:
                discarded_bytes += len(data)
                if discarded_bytes > max_bytes:
                    return
