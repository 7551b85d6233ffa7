"""Calls of the speaker embedder: by the segmenter for each group, by the ingress at the end."""

from __future__ import annotations

from typing import Any

from ray.exceptions import RayTaskError
from ray.serve.handle import DeploymentHandle

from serve_app.core.errors import DeadlineExceeded, NotReady
from serve_app.core.records import Chunk, RequestContext, RequestCost
from serve_app.core.speakers import Diarization, SpeakerWindows
from serve_app.deployments.options import LOGGER
from serve_app.deployments.retries import RetryPolicy, call_until_answered
from serve_app.settings import Settings
from serve_app.speakers.diarization import DiarizationTask
from serve_app.speakers.transcripts import missing_labels


class RemoteSpeakerEmbedder:
    """Embeds voices and tells speakers apart, even if replicas die.

    Args:
        handle: of the deployment.
        settings: of the whole application.
    """

    def __init__(self, handle: DeploymentHandle[Any], settings: Settings) -> None:
        self._handle = handle
        self._retry_policy = RetryPolicy(
            settings.max_attempts,
            settings.speaker_embedder.call_timeout_s,
            settings.replacement_timeout_s,
        )

    async def embed(self, chunks: list[Chunk]) -> list[SpeakerWindows]:
        """Returns the windows of each chunk, in the recording's time.

        Raises:
            DeadlineExceeded: the request's deadline passed.
            Exception: no replica gave an answer.
        """
        windows: list[SpeakerWindows] = await call_until_answered(
            lambda: self._handle.embed.remote(chunks),
            retry_policy=self._retry_policy,
            stage="speakers",
            context=chunks[0].context,
        )
        return windows

    async def diarize(self, task: DiarizationTask) -> Diarization:
        """Returns who spoke when.

        Raises:
            DeadlineExceeded: the request's deadline passed.
            Exception: no replica gave an answer.
        """
        diarization: Diarization = await call_until_answered(
            lambda: self._handle.diarize.remote(task),
            retry_policy=self._retry_policy,
            stage="speakers",
            context=task.context,
        )
        return diarization


class VoiceEmbedding:
    """Embeds the groups of one recording; a group that fails for good loses only its labels.

    Args:
        embedder: embeds.
        context: the request that the recording belongs to.
        cost: gets the time of the calls.
    """

    def __init__(
        self, embedder: RemoteSpeakerEmbedder, context: RequestContext, cost: RequestCost
    ) -> None:
        self._embedder = embedder
        self._context = context
        self._cost = cost
        self._failed: list[tuple[int, int]] = []
        self._gave_up = False

    async def embed(self, chunks: list[Chunk]) -> list[SpeakerWindows | None]:
        """Returns the windows of each chunk; None for all of them if the calls failed.

        Raises:
            DeadlineExceeded: the request's deadline passed.
        """
        if not self._gave_up:
            try:
                with self._cost.embedding():
                    return [*await self._embedder.embed(chunks)]
            except Exception as error:
                raise_deadline(error)
                # Further groups would each wait as long for a replica.
                self._gave_up = isinstance(error, NotReady)
                log_failure("voices of a group were not embedded", self._context, error)
        self.note_missing(chunks)
        return [None] * len(chunks)

    def note_missing(self, chunks: list[Chunk]) -> None:
        """Records chunks without windows, which are next to each other, for the notice."""
        end = chunks[-1]
        self._failed.append((chunks[0].start_ms, end.start_ms + round(1000 * end.duration_s)))

    @property
    def notices(self) -> tuple[str, ...]:
        """Says where labels are missing, if anywhere; at most one sentence."""
        return missing_labels(self._failed)


def raise_deadline(error: Exception) -> None:
    """Raises the error, or its cause in another process, if it is a missed deadline.

    Raises:
        DeadlineExceeded: the request's deadline passed.
    """
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, DeadlineExceeded):
        raise cause from None


def log_failure(message: str, context: RequestContext, error: Exception) -> None:
    LOGGER.error(message, extra={"paraserve_request_id": context.request_id}, exc_info=error)
