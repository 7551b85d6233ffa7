"""One recording at the segmenter, seen from the ingress."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, cast

from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from serve_app.core.chunks import RecordingEnd, SegmentationJob, Utterance
from serve_app.core.errors import RecognitionFailed
from serve_app.deployments.retrying import pause_after_death


class RemoteRecording:
    """The utterances of a recording; if their segmenter dies, another one goes on.

    The work is deterministic, so the second segmenter yields what the first one
    did, and what was passed on before is left out.

    Args:
        segmenter: handle of the segmenter deployment.
        job: the recording.
        max_attempts: segmenters to try.
    """

    def __init__(
        self, segmenter: DeploymentHandle[Any], job: SegmentationJob, max_attempts: int
    ) -> None:
        self._segmenter = segmenter
        self._job = job
        self._max_attempts = max_attempts
        self._next_index = 0
        self.end = RecordingEnd(0)
        """Set once all utterances have been yielded."""

    async def utterances(self) -> AsyncGenerator[Utterance]:
        """Yields the utterances in order.

        Raises:
            RecognitionFailed: every segmenter that was tried died.
            RayTaskError: around what the segmenter raised.
        """
        for attempt in range(1, self._max_attempts + 1):
            responses = cast(
                DeploymentResponseGenerator[Any],
                self._segmenter.options(stream=True).recognize.remote(self._job),
            )
            try:
                async for event in responses:
                    if isinstance(event, RecordingEnd):
                        self.end = event
                    elif event.index >= self._next_index:
                        self._next_index = event.index + 1
                        yield event
                return
            except RayActorError:
                await pause_after_death(attempt, "vad", self._job.origin.request_id)
            finally:
                responses.cancel()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
        raise RecognitionFailed(f"{self._max_attempts} segmenters died over it")
