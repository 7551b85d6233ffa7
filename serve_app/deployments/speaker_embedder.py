"""The speaker deployment: embeds voices, and tells the speakers of a recording apart."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from ray.serve import Application

from serve_app.core.records import Chunk, StageReadiness
from serve_app.core.speakers import Diarization, Embeddings, SpeakerWindows
from serve_app.deployments.client_errors import quiet_client_errors
from serve_app.deployments.metrics import ModelMetrics, gpu_bytes_of
from serve_app.deployments.options import as_deployment
from serve_app.inference.batched import BatchedEmbedder, embedder_limits, thread_niceness_of
from serve_app.inference.loading import load_speaker_embedder
from serve_app.inference.voices import mean_voices, windows_of_chunks
from serve_app.scheduling.preemption import lower_priority
from serve_app.settings import Settings
from serve_app.speakers.diarization import DiarizationTask, diarize
from serve_app.tracing import open_tracer


class SpeakerEmbedderReplica:
    """Embeds chunks with one model, and clusters embeddings on a thread beside it."""

    def __init__(self, settings: Settings) -> None:
        quiet_client_errors()
        loaded = load_speaker_embedder(settings)
        section = settings.speaker_embedder
        self._readiness = loaded.readiness
        self._stuck_after_s = section.stuck_after_s
        self._embedder = BatchedEmbedder(
            loaded.engine,
            embedder_limits(settings),
            thread_niceness_of(settings, section.device, loaded.engine),
        )
        self._clustering = ThreadPoolExecutor(
            1, "diarization", initializer=lower_priority, initargs=(settings.compute_nice,)
        )
        self._tracer = open_tracer(settings.tracing, "speakers")
        self._metrics = ModelMetrics(
            loaded.readiness, self._embedder.statistics, gpu_bytes_of(loaded.readiness)
        )
        self._embedder.on_batch = self._metrics.batch_ended

    async def embed(self, chunks: list[Chunk]) -> list[SpeakerWindows]:
        """Returns the windows of each chunk, in the recording's time; canceling drops chunks
        that are still queued.

        Raises:
            DeadlineExceeded: the request's deadline passed.
        """
        audio_s = sum(chunk.duration_s for chunk in chunks)
        attributes = {"paraserve.num_chunks": len(chunks), "paraserve.audio_s": audio_s}
        with self._tracer.span("speakers", chunks[0].context, attributes):
            embeddings = await self._embedder.embed(chunks)
        return windows_of_chunks(chunks, embeddings)

    async def diarize(self, task: DiarizationTask) -> Diarization:
        """Returns who spoke when, from all windows of a recording.

        Raises:
            DeadlineExceeded: the request's deadline passed.
        """
        attributes = {"paraserve.num_windows": len(task.windows)}
        with self._tracer.span("diarization", task.context, attributes):
            known = await self._known_voices(task)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(
                self._clustering, diarize, task.windows, task.options, known
            )

    async def describe(self) -> StageReadiness:
        return self._readiness

    async def check_health(self) -> None:
        """Serve replaces the replica if this raises."""
        self._metrics.start()
        self._embedder.check(self._stuck_after_s)

    async def _known_voices(self, task: DiarizationTask) -> Embeddings | None:
        """Returns a row for each known speaker; None without any."""
        if not task.options.known:
            return None
        references = [
            Chunk(task.context, index, 0, speaker.pcm)
            for index, speaker in enumerate(task.options.known)
        ]
        return mean_voices(await self._embedder.embed(references))


def build_speaker_embedder(settings: Settings) -> Application:
    deployment = as_deployment(
        SpeakerEmbedderReplica,
        "SpeakerEmbedder",
        settings.speaker_embedder.deployment,
        settings.log_level,
    )
    return deployment.bind(settings)
