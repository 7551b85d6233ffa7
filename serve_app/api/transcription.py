"""The handler of transcription requests, from admission to the response."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack, aclosing

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from serve_app.api.admission import TIMEOUT_HEADER, Admission, AdmissionGate, Deadline, deadline_of
from serve_app.api.auth import caller_of
from serve_app.api.body import RequestBody
from serve_app.api.errors import (
    STATUS_OF,
    error_body,
    error_response,
    forget_frames,
    internal_error_response,
)
from serve_app.api.event_stream import EventFeed, EventStream
from serve_app.api.headers import (
    WARNING_HEADER,
    add_warning_headers,
    shown_names,
    text_header,
)
from serve_app.api.hotword_report import report_hotwords
from serve_app.api.limits import ApiLimits
from serve_app.api.parameters import TranscriptionParameters, parse_parameters
from serve_app.api.request_log import RequestLog, RequestObserver, request_id_of, traceparent_of
from serve_app.api.responses import check_transcript, render, sse_error, sse_events
from serve_app.api.service import TranscriptionJob, TranscriptionService
from serve_app.api.speaker_fields import read_speaker_options
from serve_app.api.upload import Recording, UploadReader, with_query
from serve_app.api.usage import Meter
from serve_app.core.errors import ParaserveError
from serve_app.core.records import RecordingEnd, RequestContext
from serve_app.core.speakers import SpeakerOptions
from serve_app.packs.registry import demo_warning, is_demo_pack
from serve_app.transcript.itn import AS_SAID, apply_rules
from serve_app.transcript.transcript import FailedRange, TranscriptEvent, collect

_OK = 200
_CLIENT_CLOSED_REQUEST = 499
_DISCONNECTED = "client_disconnected"
_FIRST_SERVER_ERROR = 500

# An unusable recording is detected within milliseconds, so that even a streamed request can
# get an error status; after this time the headers of the stream are sent.
_STATUS_PATIENCE_S = 1.0


class TranscriptionHandler:
    """Handles a request: admission, upload, transcription and response.

    Args:
        service: transcribes.
        limits: of a request.
        gate: admits requests.
        upload_reader: receives the recordings.
        logger: gets one line per request.
        observer: notified at the end of each request.
        meter: counts the audio of each key, and knows its quota.
    """

    def __init__(
        self,
        service: TranscriptionService,
        limits: ApiLimits,
        gate: AdmissionGate,
        upload_reader: UploadReader,
        logger: logging.Logger,
        observer: RequestObserver,
        meter: Meter,
    ) -> None:
        self._service = service
        self._limits = limits
        self._gate = gate
        self._upload_reader = upload_reader
        self._logger = logger
        self._observer = observer
        self._meter = meter

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
            forget_frames(error)
        except ClientDisconnect as error:
            _mark_departed(log)
            response = Response(status_code=_CLIENT_CLOSED_REQUEST)
            forget_frames(error)
        except asyncio.CancelledError:
            # Ray Serve cancels a request whose caller has disconnected.
            _mark_departed(log)
            self._end(log)
            raise
        except Exception as error:
            response = self._fail(log)
            forget_frames(error)
        log.status = response.status_code
        pack = log.model or self._service.offer.model
        if log.status == _OK and is_demo_pack(pack):
            response.headers.append(WARNING_HEADER, text_header(demo_warning(pack)))
        if not isinstance(response, EventStream):
            self._end(log)
        return response

    def _end(self, log: RequestLog) -> None:
        log.write(self._logger)
        self._observer.ended(log)
        # A caller who leaves before the end has got text, or kept the service busy.
        if log.transcribed_s and log.code in {None, _DISCONNECTED}:
            self._meter.count(log.key, "request", log.transcribed_s)

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
            await self._meter.check(caller_of(request))
            admission = await self._admit(request, body, deadline, log)
            held.callback(admission.leave)
            async with deadline.enforced():
                recording = await self._upload_reader.receive(request, body, admission)
                held.callback(recording.spool.close)
        except ParaserveError as error:
            if admission is not None:
                admission.leave()
            await body.discard_after(error)
            raise
        log.upload_bytes = recording.spool.size_bytes
        # The declared length; the end of the recording corrects it.
        log.audio_s = recording.audio_s
        offer = self._service.offer
        parameters = parse_parameters(with_query(recording.fields, request), offer)
        log.ignored_fields = shown_names(parameters.ignored_fields)
        async with deadline.enforced():
            log.num_channels = self._num_channels(recording, parameters)
            charged_s = min(log.recognized_audio_s, admission.max_audio_s)
            await admission.begin(charged_s, body)
        log.waited_s = admission.waited_s
        log.stages = ",".join(sorted(parameters.stages))
        log.model, log.language = (
            parameters.recognition_options.model,
            parameters.recognition_options.language,
        )
        context = RequestContext(
            log.request_id,
            log.key,
            deadline.unix,
            caller_of(request).weight,
            traceparent_of(request),
        )
        if parameters.recognition_options.hotwords:
            async with deadline.enforced():
                check = await body.unless_departed(
                    self._service.check_hotwords(parameters.recognition_options, context)
                )
            parameters = report_hotwords(parameters, check, offer)
        speakers: SpeakerOptions | None = None
        if parameters.speakers is not None:
            async with deadline.enforced():
                speakers = await body.unless_departed(
                    read_speaker_options(parameters.speakers, self._limits.audio)
                )
        job = TranscriptionJob(
            context,
            recording.spool.content(),
            parameters.stages,
            parameters.recognition_options,
            parameters.speech_detection,
            speakers,
            parameters.separate_channels,
        )
        events = self._events(job, deadline, admission, log)
        if parameters.text_rules != AS_SAID:
            events = apply_rules(events, parameters.text_rules)
        if not parameters.stream:
            response = await body.unless_departed(_answer(events, parameters))
        else:
            sent = sse_events(
                events,
                language=parameters.language,
                with_logprobs=parameters.include_logprobs,
                with_words="word" in parameters.granularities,
                with_segments=parameters.response_format == "diarized_json",
            )
            response = await self._stream(sent, body, log, held)
        add_warning_headers(
            response, parameters.ignored_fields, [str(one) for one in parameters.warnings]
        )
        return response

    def _num_channels(self, recording: Recording, parameters: TranscriptionParameters) -> int:
        """Returns the expected number of recordings that a request costs.

        That is one for each separate channel. Where the header does not tell how many there
        are, as many count as are accepted.
        """
        if not parameters.separate_channels:
            return 1
        most = self._limits.audio.max_separate_channels
        return min(recording.num_channels or most, most)

    async def _admit(
        self, request: Request, body: RequestBody, deadline: Deadline, log: RequestLog
    ) -> Admission:
        num_bytes = self._upload_reader.reserved_bytes(request)
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
        self,
        events: AsyncGenerator[str],
        body: RequestBody,
        log: RequestLog,
        held: ExitStack,
    ) -> EventStream:
        """Starts the event stream, unless transcription fails at once.

        Raises:
            ParaserveError: the recording cannot be transcribed.
            ClientDisconnect: the caller disconnected.
        """
        feed = EventFeed(events)
        first = await feed.first(body, _STATUS_PATIENCE_S)
        return EventStream(
            feed,
            first,
            body,
            held.pop_all(),
            last_event=lambda error: self._last_event(error, log),
            departed=lambda: _mark_departed(log),
            at_end=lambda: self._end(log),
        )

    def _last_event(self, error: Exception, log: RequestLog) -> str:
        """Returns the error event that ends a stream."""
        if isinstance(error, ParaserveError):
            log.code = error.code
            reported = error
        else:
            self._logger.error(
                "stream failed unexpectedly",
                extra={"paraserve_request_id": log.request_id},
                exc_info=error,
            )
            log.code = "internal_error"
            reported = ParaserveError("the service failed")
        event = sse_error(error_body(reported))
        forget_frames(error)
        return event

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
                    log.audio_s = event.duration_ms / 1000
                    log.num_channels = event.num_channels
                    admission.processed_audio_s = log.audio_s * event.num_channels
                    log.transcribed_s = admission.processed_audio_s
                    log.num_chunks = len(event.utterances)
                    log.cost = event.cost
                    if event.diarization is not None:
                        log.num_speakers = len(event.diarization.labels)
                    else:
                        log.lacks_labels = job.speakers is not None
                    log.num_failed_ranges += len(event.damage)
                elif isinstance(event, FailedRange):
                    log.num_failed_ranges += 1
                else:
                    spoken_s = event.end_ms / 1000 * log.num_channels
                    log.transcribed_s = max(log.transcribed_s, spoken_s)
                yield event


def _mark_departed(log: RequestLog) -> None:
    """Marks a request as one whose caller disconnected, regardless of the response so far."""
    log.code, log.status = _DISCONNECTED, _CLIENT_CLOSED_REQUEST


async def _answer(
    events: AsyncIterator[TranscriptEvent], parameters: TranscriptionParameters
) -> Response:
    transcript = await collect(events)
    check_transcript(transcript, parameters.response_format)
    # The subtitles of an hour take most of a second.
    return await asyncio.to_thread(render, transcript, parameters)
