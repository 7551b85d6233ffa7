"""The segmenter: a file in, its utterances out, recognised and in order."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

from ray.serve import Application
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from serve_app.core.chunks import (
    Chunk,
    ChunkFailure,
    Recognition,
    RecordingEnd,
    SegmentationJob,
    Utterance,
    UtteranceSpan,
)
from serve_app.core.errors import NotReady
from serve_app.core.fanout import fan_out
from serve_app.core.stages import StageReadiness
from serve_app.deployments.options import as_deployment
from serve_app.deployments.retrying import call_until_answered
from serve_app.pipeline.loading import load_vad, segmentation_options
from serve_app.pipeline.segmentation import Segmentation
from serve_app.settings import Settings


class SegmenterDeployment:
    """Decodes and cuts, and keeps a window of calls at the recogniser.

    Args:
        settings: of the whole application.
        recognizer: handle of the recogniser deployment.
    """

    def __init__(self, settings: Settings, recognizer: DeploymentHandle[Any]) -> None:
        self._loaded_vad = load_vad(settings) if "vad" in settings.stages else None
        self._options = segmentation_options(settings)
        self._settings = settings.segmenter
        self._max_attempts = settings.max_attempts
        self._recognizer = recognizer
        # Recordings take turns on this thread, one decoded window at a time.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="segmenter")

    async def recognize(self, job: SegmentationJob) -> AsyncGenerator[Utterance | RecordingEnd]:
        """Yields the recording's utterances in order, then its end.

        Raises:
            AudioError: the file is not usable audio.
        """
        vad = self._loaded_vad.engine if job.use_vad and self._loaded_vad else None
        segmentation = Segmentation(job.audio, vad, self._options)
        spans: list[UtteranceSpan] = []
        groups = segmentation.groups_on(self._thread, job.origin)
        async with aclosing(fan_out(groups, self._recognize, self._settings.window)) as utterances:
            async for utterance in utterances:
                spans.append(utterance.span)
                yield utterance
        yield RecordingEnd(segmentation.duration_ms, tuple(spans))

    async def describe(self) -> StageReadiness | None:
        return self._loaded_vad.readiness if self._loaded_vad else None

    async def _recognize(self, chunks: list[Chunk]) -> list[Recognition | ChunkFailure]:
        return await call_until_answered(
            lambda: self._call(chunks),
            max_attempts=self._max_attempts,
            stage="asr",
            request_id=chunks[0].origin.request_id,
        )

    async def _call(self, chunks: list[Chunk]) -> list[Recognition | ChunkFailure]:
        try:
            results: list[Recognition | ChunkFailure] = await self._recognizer.transcribe.remote(
                chunks
            )
        except DeploymentUnavailableError:
            raise NotReady("asr") from None
        return results


def build_segmenter(settings: Settings, recognizer: Application) -> Application:
    deployment = as_deployment(
        SegmenterDeployment, "Segmenter", settings.segmenter.deployment, settings.log_level
    )
    return deployment.bind(settings, recognizer)
