"""The segmenter deployment: decodes and cuts recordings and has the chunks recognized."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from serve_app.core.records import (
    Chunk,
    ChunkFailure,
    Recognition,
    RecordingEnd,
    RequestContext,
    RequestCost,
    SegmentationJob,
    StageReadiness,
    Utterance,
    UtteranceStatus,
    UtteranceSummary,
)
from serve_app.deployments.client_errors import quiet_client_errors
from serve_app.deployments.handles import RemoteRecognizer
from serve_app.deployments.metrics import SegmenterMetrics, take_retries
from serve_app.deployments.options import as_deployment, segmenter_autoscaling
from serve_app.deployments.speakers import RemoteSpeakerEmbedder, VoiceEmbedding
from serve_app.inference.loading import load_vad, segmentation_options
from serve_app.scheduling.autoscaling import Backlog, RecordingBacklog, SegmenterLoad
from serve_app.scheduling.fair_executor import FairExecutor
from serve_app.settings import Settings
from serve_app.tracing import open_tracer
from serve_app.transcript.fanout import KnownUtterances, fan_out, with_heartbeats
from serve_app.transcript.segmentation import Segmentation

_HEARTBEAT_S = 5.0


class SegmenterReplica:
    """Decodes recordings, cuts them into chunks and calls the recognizer.

    Args:
        settings: of the whole application.
        recognizer: handle of the recognizer deployment.
        speaker_embedder: handle of the speaker embedder, None without one.
    """

    def __init__(
        self,
        settings: Settings,
        recognizer: DeploymentHandle[Any],
        speaker_embedder: DeploymentHandle[Any] | None = None,
    ) -> None:
        quiet_client_errors()
        self._loaded_vad = load_vad(settings) if "vad" in settings.stages else None
        self._options = replace(segmentation_options(settings), urgent_s=settings.audio.urgent_s)
        self._settings = settings.segmenter
        self._job_weight = settings.jobs.autoscaling_weight
        self._recognizer = RemoteRecognizer(recognizer, settings)
        self._embedder = (
            None if speaker_embedder is None else RemoteSpeakerEmbedder(speaker_embedder, settings)
        )
        # Recordings alternate on this thread, one decoded block at a time.
        self._thread: FairExecutor[list[Chunk] | None] = FairExecutor(
            "segmenter", settings.compute_nice
        )
        self._backlog = Backlog()
        self._tracer = open_tracer(settings.tracing, "segmenter")
        self._metrics = SegmenterMetrics(
            self._backlog, self._loaded_vad.readiness if self._loaded_vad else None
        )

    async def recognize(
        self, job: SegmentationJob
    ) -> AsyncGenerator[Utterance | RecordingEnd | None]:
        """Yields the recording's utterances in order, then its end.

        None in between is a heartbeat.

        Raises:
            AudioError: the file is not usable audio.
            DeadlineExceeded: the request's deadline passed.
        """
        with self._tracer.span("segmenter", job.context) as context:
            recording = self._events(replace(job, context=context))
            async with aclosing(with_heartbeats(recording, _HEARTBEAT_S)) as events:
                async for event in events:
                    yield event

    async def record_autoscaling_stats(self) -> SegmenterLoad:
        """Returns this replica's load for the autoscaling policy."""
        return SegmenterLoad(backlog_audio_s=self._backlog.audio_s)

    async def describe(self) -> StageReadiness | None:
        return self._loaded_vad.readiness if self._loaded_vad else None

    async def check_health(self) -> None:
        """Serve replaces the replica if this raises."""
        self._metrics.start()
        self._thread.check(self._settings.stuck_after_s)

    async def _events(self, job: SegmentationJob) -> AsyncGenerator[Utterance | RecordingEnd]:
        vad = self._loaded_vad.engine if job.use_vad and self._loaded_vad else None
        segmentation = Segmentation(
            job.audio,
            vad,
            self._options,
            job.recognition_options,
            job.speech_detection,
            separate_channels=job.separate_channels,
        )
        spans: list[UtteranceSummary] = []
        cost = RequestCost()
        voices: VoiceEmbedding | None = None
        if job.speakers and self._embedder is not None:
            voices = VoiceEmbedding(self._embedder, job.context, cost)
        weight = self._job_weight if job.context.background else 1.0
        with self._backlog.open(weight) as account:
            known = _Resumption(job.known, account, voices)
            groups = self._accounted(segmentation, job.context, account)
            recognize = partial(self._recognize, account, cost)
            recognized = fan_out(
                groups,
                recognize,
                self._settings.max_in_flight,
                None if voices is None else voices.embed,
                known.find,
            )
            try:
                async with aclosing(groups), aclosing(recognized) as utterances:
                    async for utterance in utterances:
                        spans.append(utterance.summary)
                        yield utterance
            finally:
                cost.decode_s = segmentation.busy_s
                cost.num_retries = take_retries(job.context)
                self._metrics.decoded(cost.decode_s)
                self._metrics.chunks(known.statuses_of_others(spans))
        end = segmentation.end(spans, cost)
        yield end if voices is None else replace(end, notices=(*end.notices, *voices.notices))

    async def _accounted(
        self, segmentation: Segmentation, context: RequestContext, account: RecordingBacklog
    ) -> AsyncGenerator[list[Chunk]]:
        """Yields the groups and records the decoded audio in `account`."""
        async with aclosing(segmentation.groups_on(self._thread, context)) as groups:
            async for group in groups:
                num_channels = segmentation.num_channels
                declared_s = segmentation.declared_s
                account.decoded(
                    segmentation.duration_ms / 1000 * num_channels,
                    None if declared_s is None else declared_s * num_channels,
                )
                yield group
        account.decoded(segmentation.duration_ms / 1000 * segmentation.num_channels, None)

    async def _recognize(
        self, account: RecordingBacklog, cost: RequestCost, chunks: list[Chunk]
    ) -> list[Recognition | ChunkFailure]:
        audio_s = sum(chunk.duration_s for chunk in chunks)
        account.sent(audio_s)
        try:
            with cost.recognizing():
                return await self._recognizer.recognize(chunks)
        finally:
            account.answered(audio_s)


class _Resumption:
    """What is known of one recording from an earlier attempt.

    Args:
        utterances: that are known.
        account: of the recording; known chunks leave its backlog at once.
        voices: notes known utterances without windows; None without speaker labels.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        account: RecordingBacklog,
        voices: VoiceEmbedding | None,
    ) -> None:
        self._known = KnownUtterances(utterances)
        self._account = account
        self._voices = voices
        self._indices: set[int] = set()

    def find(self, chunk: Chunk) -> Utterance | None:
        """Returns the chunk's utterance, None if it has to be recognized."""
        utterance = self._known.of(chunk)
        if utterance is None:
            return None
        self._indices.add(chunk.index)
        self._account.sent(chunk.duration_s)
        self._account.answered(chunk.duration_s)
        if self._voices is not None and utterance.voices is None:
            self._voices.note_missing([chunk])
        return utterance

    def statuses_of_others(self, spans: Sequence[UtteranceSummary]) -> list[UtteranceStatus]:
        """Returns the statuses of the utterances that were not known.

        Args:
            spans: of the recording's first utterances, in order of their indices.
        """
        return [span.status for index, span in enumerate(spans) if index not in self._indices]


def build_segmenter(
    settings: Settings, recognizer: Application, speaker_embedder: Application | None = None
) -> Application:
    deployment = as_deployment(
        SegmenterReplica,
        "Segmenter",
        settings.segmenter.deployment,
        settings.log_level,
        segmenter_autoscaling(settings),
    )
    if speaker_embedder is None:
        return deployment.bind(settings, recognizer)
    return deployment.bind(settings, recognizer, speaker_embedder)
