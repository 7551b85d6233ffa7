"""What a transcription request goes through on its way."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import ExitStack, aclosing

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from serve_app.api.admission import Admission, AdmissionGate
from serve_app.api.authentication import caller_of
from serve_app.api.body import RequestBody
from serve_app.api.catalogue import demo_warning
from serve_app.api.deadlines import TIMEOUT_HEADER, Deadline, deadline_of
from serve_app.api.errors import (
    STATUS_OF,
    error_body,
    error_response,
    internal_error_response,
)
from serve_app.api.headers import WARNING_HEADER, text_header
from serve_app.api.intake import Intake
from serve_app.api.limits import ApiLimits
from serve_app.api.parameters import TranscriptionParameters, parse_parameters
from serve_app.api.rendering import render, sse_error, sse_events
from serve_app.api.request_log import (
    RequestLog,
    RequestObserver,
    request_id_of,
    traceparent_of,
)
from serve_app.api.service import TranscriptionJob, TranscriptionService
from serve_app.core.chunks import RecordingEnd
from serve_app.core.errors import ParaserveError, RecognitionFailed, UploadTooSlow
from serve_app.core.itn import AS_SAID, apply_rules
from serve_app.core.origin import Origin
from serve_app.core.transcripts import FailedRange, TranscriptEvent, collect
from serve_app.packs.registry import is_demo_pack

_OK = 200
_CLIENT_CLOSED_REQUEST = 499
_FIRST_SERVER_ERROR = 500


class TranscriptionHandler:
    """Admits, takes in, transcribes and answers.

    Args:
        service: transcribes.
        limits: of a request.
        gate: admits.
        intake: takes in the recordings.
        logger: is told one line a request.
        observer: is told of the end of each.
    """

    def __init__(
        self,
        service: TranscriptionService,
        limits: ApiLimits,
        gate: AdmissionGate,
        intake: Intake,
        logger: logging.Logger,
        observer: RequestObserver,
    ) -> None:
        self._service = service
        self._limits = limits
        self._gate = gate
        self._intake = intake
        self._logger = logger
        self._observer = observer

    async def transcribe(self, request: Request) -> Response:
        caller = caller_of(request)
        log = RequestLog(request_id_of(request), time.monotonic(), key=caller.name)
        body = RequestBody(request, self._limits.upload_rate)
        try:
            with ExitStack() as held:
                held.callback(body.close)
                response = await self._respond(request, body, log, held)
        except ParaserveError as error:
            response = self._refuse(error, log)
            _forget_frames(error)
        except ClientDisconnect as error:
            log.code = "client_disconnected"
            response = Response(status_code=_CLIENT_CLOSED_REQUEST)
            _forget_frames(error)
        except asyncio.CancelledError:
            # Ray Serve cancels a request whose caller has left.
            log.code, log.status = "client_disconnected", _CLIENT_CLOSED_REQUEST
            self._end(log)
            raise
        except Exception as error:
            response = self._fail(log)
            _forget_frames(error)
        log.status = response.status_code
        pack = log.model or self._service.offer.model
        if log.status == _OK and is_demo_pack(pack):
            response.headers.append(WARNING_HEADER, text_header(demo_warning(pack)))
        if not isinstance(response, _EventStream):
            self._end(log)
        return response

    def _end(self, log: RequestLog) -> None:
        log.write(self._logger)
        self._observer.ended(log)

    async def _respond(
        self, request: Request, body: RequestBody, log: RequestLog, held: ExitStack
    ) -> Response:
        admission: Admission | None = None
        try:
            deadline = deadline_of(
                request.headers.get(TIMEOUT_HEADER),
                self._limits.request_timeout_s,
                self._limits.max_request_timeout_s,
            )
            admission = await self._admit(request, body, deadline, log)
            held.callback(admission.leave)
            async with deadline.enforced():
                recording = await self._intake.receive(request, body, admission)
                held.callback(recording.spool.close)
        except ParaserveError as error:
            if admission is not None:
                admission.leave()
            if not isinstance(error, UploadTooSlow):
                await body.discard()
            raise
        log.upload_bytes = recording.spool.size_bytes
        # As declared; the end of the recording corrects it.
        log.audio_s = recording.audio_s
        parameters = parse_parameters(recording.fields, self._service.offer)
        async with deadline.enforced():
            await admission.begin(recording.audio_s, body)
        log.waited_s = admission.waited_s
        log.stages = ",".join(sorted(parameters.stages))
        log.model, log.language = parameters.hints.model, parameters.hints.language
        origin = Origin(
            log.request_id,
            log.key,
            deadline.unix,
            caller_of(request).weight,
            traceparent_of(request),
        )
        if parameters.hints.hotwords:
            async with deadline.enforced():
                await self._service.check_hotwords(parameters.hints, origin)
        job = TranscriptionJob(
            origin, recording.spool.content(), parameters.stages, parameters.hints
        )
        events = self._events(job, deadline, admission, log)
        if parameters.text_rules != AS_SAID:
            events = apply_rules(events, parameters.text_rules)
        if not parameters.stream:
            return await body.unless_departed(_answer(events, parameters))
        # Until the first event is there, an error can be told by its status.
        first = await body.unless_departed(anext(events))
        body.close()
        stream = self._stream(_prepend(first, events), log)
        return _EventStream(stream, held.pop_all(), lambda: self._end(log))

    async def _admit(
        self, request: Request, body: RequestBody, deadline: Deadline, log: RequestLog
    ) -> Admission:
        num_bytes = self._intake.reserved_bytes(request)
        admission = await self._gate.enter(caller_of(request), num_bytes, deadline, body)
        log.waited_s = admission.waited_s
        return admission

    def _refuse(self, error: ParaserveError, log: RequestLog) -> Response:
        log.code = error.code
        if STATUS_OF[type(error)] >= _FIRST_SERVER_ERROR:
            self._logger.error(
                "request failed",
                extra={"paraserve_request_id": log.request_id, "error": str(error)},
            )
        return error_response(error)

    def _fail(self, log: RequestLog) -> Response:
        self._logger.exception(
            "request failed unexpectedly", extra={"paraserve_request_id": log.request_id}
        )
        log.code = "internal_error"
        return internal_error_response()

    async def _stream(
        self, events: AsyncGenerator[TranscriptEvent], log: RequestLog
    ) -> AsyncGenerator[str]:
        """Yields server-sent events, the last one an error if need be."""
        try:
            async with aclosing(events):
                async for event in sse_events(events):
                    yield event
        except ParaserveError as error:
            log.code = error.code
            _forget_frames(error)
            yield sse_error(error_body(error))
        except Exception as error:
            self._logger.exception(
                "stream failed unexpectedly", extra={"paraserve_request_id": log.request_id}
            )
            log.code = "internal_error"
            _forget_frames(error)
            yield sse_error(error_body(ParaserveError("the service failed")))

    async def _events(
        self, job: TranscriptionJob, deadline: Deadline, admission: Admission, log: RequestLog
    ) -> AsyncGenerator[TranscriptEvent]:
        async with aclosing(self._service.transcribe(job)) as events:
            while True:
                try:
                    async with deadline.enforced():
                        event = await anext(events)
                except StopAsyncIteration:
                    return
                if isinstance(event, RecordingEnd):
                    log.audio_s = admission.processed_audio_s = event.duration_ms / 1000
                    log.num_chunks = len(event.utterances)
                    log.cost = event.cost
                    log.num_failed_ranges += len(event.damage)
                elif isinstance(event, FailedRange):
                    log.num_failed_ranges += 1
                yield event


class _EventStream(StreamingResponse):
    """Server-sent events; frees what the request held however the sending ends.

    Args:
        events: what is sent.
        held: is closed at the end.
        at_end: is called after that.
    """

    def __init__(
        self, events: AsyncGenerator[str], held: ExitStack, at_end: Callable[[], None]
    ) -> None:
        super().__init__(
            events, media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )
        self._events = events
        self._held = held
        self._at_end = at_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            try:
                await self._events.aclose()
            finally:
                self._held.close()
                self._at_end()


def _forget_frames(error: BaseException) -> None:
    """Empties the frames of an error that has been told.

    Errors that pass through tasks end in circles of frames and tracebacks, which
    would keep the recording on disk until the next garbage collection.
    """
    seen: set[int] = set()
    chain: BaseException | None = error
    while chain is not None and id(chain) not in seen:
        seen.add(id(chain))
        traceback.clear_frames(chain.__traceback__)
        chain = chain.__cause__ or chain.__context__


async def _answer(
    events: AsyncIterator[TranscriptEvent], parameters: TranscriptionParameters
) -> Response:
    transcript = await collect(events)
    unrecognized = [one for one in transcript.failures if one.reason == "recognition_failed"]
    if unrecognized and not transcript.sentences:
        raise RecognitionFailed(unrecognized[0].error)
    # The subtitles of an hour take most of a second.
    return await asyncio.to_thread(render, transcript, parameters)


async def _prepend(
    first: TranscriptEvent, rest: AsyncGenerator[TranscriptEvent]
) -> AsyncGenerator[TranscriptEvent]:
    async with aclosing(rest):
        yield first
        async for event in rest:
            yield event
