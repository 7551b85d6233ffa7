"""One recording at the segmenter, seen from the ingress."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from ray.serve.handle import DeploymentHandle

from serve_app.core.chunks import RecordingEnd, SegmentationJob, Utterance
from serve_app.core.errors import RecognitionFailed
from serve_app.deployments.retrying import pause, trouble_of
from serve_app.deployments.streaming import stream_call


class RemoteRecording:
    """The utterances of a recording; if their segmenter is lost, another one goes on.

    The work is deterministic, so the second segmenter yields what the first one
    did, and what was passed on before is left out.

    Args:
        segmenter: handle of the segmenter deployment.
        job: the recording.
        max_attempts: segmenters to try without getting any further.
        silence_timeout_s: longest time without a sign of life from a segmenter that
            has begun.
    """

    def __init__(
        self,
        segmenter: DeploymentHandle[Any],
        job: SegmentationJob,
        max_attempts: int,
        silence_timeout_s: float,
    ) -> None:
        self._recognize = segmenter.options(method_name="recognize", stream=True)
        self._job = job
        self._max_attempts = max_attempts
        self._silence_timeout_s = silence_timeout_s
        self._next_index = 0
        self.end = RecordingEnd(0)
        """Set once all utterances have been yielded."""

    async def utterances(self) -> AsyncGenerator[Utterance]:
        """Yields the utterances in order.

        Raises:
            RecognitionFailed: every segmenter that was tried was lost.
            DeadlineExceeded: the request's deadline passed.
            RayTaskError: around what the segmenter raised.
        """
        attempt = 0
        while True:
            attempt += 1
            reached = self._next_index
            try:
                async with aclosing(self._events()) as events:
                    async for utterance in events:
                        yield utterance
                return
            except BaseException as error:
                trouble = trouble_of(error)
                if trouble is None:
                    raise
            if self._next_index > reached:
                attempt = 1
            attempt -= trouble == "full"
            if attempt >= self._max_attempts:
                raise RecognitionFailed(f"{attempt} segmenters were lost over it")
            await pause(max(attempt, 1), trouble, "vad", self._job.origin)

    async def _events(self) -> AsyncGenerator[Utterance]:
        stream = stream_call(
            lambda: self._recognize.remote(self._job),
            self._job.origin,
            first_s=None,
            next_s=self._silence_timeout_s,
        )
        async with aclosing(stream):
            async for event in stream:
                if isinstance(event, RecordingEnd):
                    self.end = event
                elif isinstance(event, Utterance) and event.index >= self._next_index:
                    self._next_index = event.index + 1
                    yield event
