"""The recogniser: chunks of any requests in, batched for the model, tokens out."""

from __future__ import annotations

from ray.serve import Application

from serve_app.core.chunks import Chunk, ChunkFailure, Recognition
from serve_app.core.stages import StageReadiness
from serve_app.deployments.options import LOGGER, as_deployment
from serve_app.pipeline.batched import BatchedRecognizer
from serve_app.pipeline.loading import load_recognizer
from serve_app.settings import Settings


class RecognizerDeployment:
    """One model, one batch in flight."""

    def __init__(self, settings: Settings) -> None:
        loaded = load_recognizer(settings)
        self._readiness = loaded.readiness
        self._recognizer = BatchedRecognizer(
            loaded.engine, settings.recognizer.max_batch_frames, LOGGER
        )

    async def transcribe(self, chunks: list[Chunk]) -> list[Recognition | ChunkFailure]:
        """Returns a result per chunk, in order; cancelling drops what has not begun."""
        return await self._recognizer.transcribe(chunks)

    async def describe(self) -> StageReadiness:
        return self._readiness


def build_recognizer(settings: Settings) -> Application:
    deployment = as_deployment(
        RecognizerDeployment, "Recognizer", settings.recognizer.deployment, settings.log_level
    )
    return deployment.bind(settings)
