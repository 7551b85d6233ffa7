"""The ingress deployment: serves the HTTP API and calls the other deployments."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve import Application
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from serve_app.api.models import offer_of
from serve_app.api.parameters import Offer
from serve_app.api.routes import assemble_api
from serve_app.api.service import TranscriptionJob
from serve_app.core.errors import NotReady, ParaserveError, RequestError
from serve_app.core.records import (
    HotwordCheck,
    RecognitionOptions,
    RecordingEnd,
    RequestContext,
    RequestCost,
    SegmentationJob,
    Stage,
    StageReadiness,
    Utterance,
)
from serve_app.core.speakers import Diarization, SpeakerOptions
from serve_app.deployments.client_errors import quiet_client_errors
from serve_app.deployments.handles import RemoteRecording
from serve_app.deployments.metrics import IngressMetrics, take_retries
from serve_app.deployments.options import LOGGER, as_deployment
from serve_app.deployments.retries import RetryPolicy, call_until_answered
from serve_app.deployments.speakers import RemoteSpeakerEmbedder, log_failure, raise_deadline
from serve_app.settings import DeploymentSettings, Settings
from serve_app.speakers.diarization import DiarizationTask
from serve_app.speakers.transcripts import NO_LABELS, RecordingVoices
from serve_app.tracing import open_tracer
from serve_app.transcript.assembly import assemble
from serve_app.transcript.sentences import Punctuate, PunctuationResult, PunctuationTask
from serve_app.transcript.transcript import TranscriptEvent

# Twelve times the interval of a segmenter's heartbeats (5 s).
_SILENCE_TIMEOUT_S = 60.0
_READINESS_TIMEOUT_S = 3.0


class HandleTranscriptionService:
    """`TranscriptionService` over the handles of the other deployments.

    Args:
        settings: of the whole application.
        segmenter: decodes and cuts recordings and calls the recognizer.
        recognizer: used here for readiness and hotwords only.
        punctuator: None in a deployment without punctuation.
        speaker_embedder: None in a deployment without speaker labels.
    """

    def __init__(
        self,
        settings: Settings,
        segmenter: DeploymentHandle[Any],
        recognizer: DeploymentHandle[Any],
        punctuator: DeploymentHandle[Any] | None,
        speaker_embedder: DeploymentHandle[Any] | None = None,
    ) -> None:
        self._settings = settings
        self._segmenter = segmenter
        self._recognizer = recognizer
        self._punctuator = punctuator
        self._speaker_embedder = speaker_embedder
        self._diarizer = (
            None if speaker_embedder is None else RemoteSpeakerEmbedder(speaker_embedder, settings)
        )
        self._tracer = open_tracer(settings.tracing, "ingress")
        self._retry_policy = RetryPolicy(
            settings.max_attempts, replacement_s=settings.replacement_timeout_s
        )
        self._offer = offer_of(settings)
        self._ready: dict[Stage, StageReadiness] = {}

    @property
    def offer(self) -> Offer:
        return self._offer

    async def check_hotwords(
        self, recognition_options: RecognitionOptions, context: RequestContext
    ) -> HotwordCheck:
        try:
            check: HotwordCheck = await call_until_answered(
                lambda: self._recognizer.check_hotwords.remote(recognition_options),
                retry_policy=self._retry_policy,
                stage="asr",
                context=context,
            )
        except RayTaskError as error:
            raise _cause(error) from None
        return check

    async def transcribe(
        self, job: TranscriptionJob, on_utterance: Callable[[Utterance], None] | None = None
    ) -> AsyncGenerator[TranscriptEvent]:
        """As `TranscriptionService.transcribe`.

        Args:
            job: the recording.
            on_utterance: called with each utterance as it comes, with its windows.
        """
        attributes = {"paraserve.stages": ",".join(sorted(job.stages))}
        try:
            with self._tracer.span("ingress", job.context, attributes) as context:
                recording = self._events(replace(job, context=context), on_utterance)
                async with aclosing(recording) as events:
                    async for event in events:
                        yield event
        finally:
            take_retries(job.context)

    async def _events(
        self, job: TranscriptionJob, on_utterance: Callable[[Utterance], None] | None
    ) -> AsyncGenerator[TranscriptEvent]:
        recording = RemoteRecording(
            self._segmenter,
            SegmentationJob(
                job.context,
                job.audio,
                "vad" in job.stages,
                job.recognition_options,
                job.speech_detection,
                separate_channels=job.separate_channels,
                speakers=job.speakers is not None,
                known=job.known,
            ),
            self._settings.max_attempts,
            _SILENCE_TIMEOUT_S,
            self._settings.replacement_timeout_s,
        )
        cost = RequestCost()
        voices = RecordingVoices()
        punctuate: Punctuate | None = None
        if self._punctuator is not None and "punctuation" in job.stages:
            punctuate = partial(self._punctuate, self._punctuator, cost)

        def end() -> RecordingEnd:
            cost.add(recording.end.cost)
            cost.num_retries += take_retries(job.context)
            return replace(recording.end, cost=cost)

        events = assemble(
            job.context,
            _without_voices(recording.utterances(), voices, on_utterance),
            punctuate,
            self._settings.punctuator.sentence_break_s,
            end,
        )
        try:
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, RecordingEnd) and job.speakers is not None:
                        event = await self._diarized(event, voices, job.context, job.speakers)
                    yield event
        except RayTaskError as error:
            raise _cause(error) from None
        except DeploymentUnavailableError:
            raise NotReady("a deployment that failed to start") from None

    async def _diarized(
        self,
        end: RecordingEnd,
        voices: RecordingVoices,
        context: RequestContext,
        options: SpeakerOptions,
    ) -> RecordingEnd:
        """Returns the end with who spoke when; if that fails for good, with a notice instead.

        Raises:
            RequestError: a recording of a known speaker is not usable.
            DeadlineExceeded: the request's deadline passed.
        """
        if not voices or self._diarizer is None:
            return end if end.utterances else replace(end, diarization=Diarization())
        task = DiarizationTask(context, voices.windows(), options)
        try:
            with end.cost.embedding():
                diarization = await self._diarizer.diarize(task)
            end.cost.num_retries += take_retries(context)
        except Exception as error:
            raise_deadline(error)
            if isinstance(error, RayTaskError) and isinstance(error.cause, RequestError):
                raise
            log_failure("speakers were not told apart", context, error)
            return replace(end, notices=(*end.notices, NO_LABELS))
        return replace(end, diarization=voices.in_recording_time(diarization))

    async def readiness(self) -> list[StageReadiness]:
        asked: dict[Stage, DeploymentHandle[Any]] = {
            "vad": self._segmenter,
            "asr": self._recognizer,
        }
        if self._punctuator is not None:
            asked["punctuation"] = self._punctuator
        if self._speaker_embedder is not None:
            asked["speakers"] = self._speaker_embedder
        answers = await asyncio.gather(*(self._ask(stage, asked[stage]) for stage in asked))
        return [answer for answer in answers if answer is not None]

    async def _ask(self, stage: Stage, handle: DeploymentHandle[Any]) -> StageReadiness | None:
        """Returns a deployment's readiness; one that may scale to zero is asked only once.

        Each call wakes it, so frequent probes would keep it from ever scaling to zero.

        Raises:
            NotReady: it does not answer in time.
        """
        if stage in self._ready:
            return self._ready[stage]
        answer = await _ask(stage, handle)
        scaling = _deployment_of(self._settings, stage).autoscaling
        if answer is not None and scaling is not None and scaling.min_replicas == 0:
            self._ready[stage] = answer
        return answer

    async def _punctuate(
        self, punctuator: DeploymentHandle[Any], cost: RequestCost, task: PunctuationTask
    ) -> PunctuationResult:
        with cost.punctuating():
            result: PunctuationResult = await call_until_answered(
                lambda: punctuator.punctuate.remote(task),
                retry_policy=self._retry_policy,
                stage="punctuation",
                context=task.context,
            )
        return result


async def _without_voices(
    utterances: AsyncGenerator[Utterance],
    voices: RecordingVoices,
    on_utterance: Callable[[Utterance], None] | None,
) -> AsyncGenerator[Utterance]:
    """Yields the utterances without their windows, which it adds to `voices`."""
    async with aclosing(utterances):
        async for utterance in utterances:
            if on_utterance is not None:
                on_utterance(utterance)
            voices.add(utterance)
            yield replace(utterance, voices=None)


def _deployment_of(settings: Settings, stage: Stage) -> DeploymentSettings:
    deployments: dict[Stage, DeploymentSettings] = {
        "vad": settings.segmenter.deployment,
        "asr": settings.recognizer.deployment,
        "punctuation": settings.punctuator.deployment,
        "speakers": settings.speaker_embedder.deployment,
    }
    return deployments[stage]


async def _ask(stage: Stage, handle: DeploymentHandle[Any]) -> StageReadiness | None:
    """Returns a deployment's readiness.

    Raises:
        NotReady: it does not answer in time.
    """
    try:
        async with asyncio.timeout(_READINESS_TIMEOUT_S):
            answer: StageReadiness | None = await handle.describe.remote()
            return answer
    except (TimeoutError, RayError, RayServeException):
        raise NotReady(stage) from None


def _cause(error: RayTaskError) -> Exception:
    """Returns our own error from Ray's wrapper, whose text is a remote traceback."""
    cause = error.cause
    return cause if isinstance(cause, ParaserveError) else error


class IngressReplica:
    """FastAPI on a Serve replica.

    Args:
        settings: of the whole application.
        segmenter: handle of the segmenter.
        recognizer: handle of the recognizer.
        punctuator: handle of the punctuator, None without one.
        speaker_embedder: handle of the speaker embedder, None without one.
        job_runner: not called; the handle makes the job runner a part of the application.
    """

    def __init__(
        self,
        settings: Settings,
        segmenter: DeploymentHandle[Any],
        recognizer: DeploymentHandle[Any],
        punctuator: DeploymentHandle[Any] | None = None,
        speaker_embedder: DeploymentHandle[Any] | None = None,
        job_runner: DeploymentHandle[Any] | None = None,
    ) -> None:
        quiet_client_errors()
        self._settings = settings
        self._service = HandleTranscriptionService(
            settings, segmenter, recognizer, punctuator, speaker_embedder
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        return assemble_api(self._service, self._settings, LOGGER, IngressMetrics())


def build_ingress(
    settings: Settings,
    segmenter: Application,
    recognizer: Application,
    punctuator: Application | None,
    speaker_embedder: Application | None = None,
    job_runner: Application | None = None,
) -> Application:
    deployment = as_deployment(
        serve.ingress()(IngressReplica),
        "Ingress",
        settings.ingress.deployment,
        settings.log_level,
    )
    optional = {
        "punctuator": punctuator,
        "speaker_embedder": speaker_embedder,
        "job_runner": job_runner,
    }
    bound = {name: stage for name, stage in optional.items() if stage is not None}
    return deployment.bind(settings, segmenter, recognizer, **bound)
