"""Transcribes jobs by the stages of the service, in the background."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from serve_app import __version__
from serve_app.api.job_requests import PreparedJob, job_error, prepare_job, read_job_request
from serve_app.api.limits import limits_of
from serve_app.api.responses import check_transcript
from serve_app.core.errors import NotReady, ParaserveError
from serve_app.core.records import RequestContext, Utterance
from serve_app.deployments.ingress import HandleTranscriptionService
from serve_app.deployments.retries import failure_kind_of
from serve_app.inference.fingerprint import output_settings_of
from serve_app.jobs.attempt import JobTask
from serve_app.jobs.records import JobError
from serve_app.settings import Settings
from serve_app.transcript.itn import AS_SAID, apply_rules
from serve_app.transcript.transcript import Transcript, collect


class ServiceTranscriber:
    """`Transcriber` over the handles of the other deployments.

    Args:
        service: of the handles.
        settings: of the whole application.
    """

    def __init__(self, service: HandleTranscriptionService, settings: Settings) -> None:
        self._service = service
        self._limits = limits_of(settings).audio
        self._made_by = _made_by(settings)

    @property
    def made_by(self) -> str:
        return self._made_by

    def audio_names(self, request: bytes) -> Sequence[str]:
        return read_job_request(request).audio

    def job_error(self, error: ParaserveError) -> JobError:
        return job_error(error)

    async def transcribe(
        self, task: JobTask, on_utterance: Callable[[Utterance], None]
    ) -> Transcript:
        job = task.job
        context = RequestContext(job.id, job.key, weight=job.weight, background=True)
        try:
            fields = read_job_request(task.request).fields
            prepared = await prepare_job(fields, self._service, self._limits, context)
            transcript = await self._transcript(task, prepared, context, on_utterance)
        except Exception as error:
            if failure_kind_of(error) is None:
                raise
            # Replicas were lost, and no other one was found in time.
            raise NotReady("a replica in place of a lost one") from error
        check_transcript(transcript, prepared.parameters.response_format)
        return transcript

    async def _transcript(
        self,
        task: JobTask,
        prepared: PreparedJob,
        context: RequestContext,
        on_utterance: Callable[[Utterance], None],
    ) -> Transcript:
        # Windows that could not be made are tried again, with their chunks.
        needs_voices = prepared.speakers is not None
        known = tuple(one for one in task.known if one.voices is not None or not needs_voices)
        recording = replace(prepared.transcription(context, task.audio), known=known)
        events = self._service.transcribe(recording, on_utterance)
        if prepared.parameters.text_rules != AS_SAID:
            events = apply_rules(events, prepared.parameters.text_rules)
        async with aclosing(events):
            return await collect(events)


def _made_by(settings: Settings) -> str:
    """Returns what the utterances depend on besides the recording and the request."""
    recognizer = settings.recognizer
    parts: list[object] = [__version__, recognizer.packs, recognizer.whisper.pack]
    parts += output_settings_of(settings, "asr")
    if "speakers" in settings.stages:
        parts += [settings.speaker_embedder.pack, *output_settings_of(settings, "speakers")]
    return hashlib.sha256(repr(parts).encode()).hexdigest()
