"""One recording at the segmenter, seen from the ingress."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, NoReturn

from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from serve_app.core.errors import NotReady, RecognitionFailed
from serve_app.core.records import RecordingEnd, SegmentationJob, Utterance
from serve_app.deployments.retries import REPLACEMENT_S, Losses, Tries, pause, trouble_of
from serve_app.deployments.streaming import stream_call


class RemoteRecording:
    """The utterances of a recording; if their segmenter is lost, another one goes on.

    The work is deterministic, so the second segmenter yields what the first one
    did, and what was passed on before is left out.

    Args:
        segmenter: handle of the segmenter deployment.
        job: the recording.
        max_attempts: segmenters that may be lost while the recording gets no further.
        silence_timeout_s: longest time without a sign of life from a segmenter that
            has begun.
        replacement_s: longest wait for a live segmenter, while calls find none.
        clock: in seconds, monotonic.
    """

    def __init__(
        self,
        segmenter: DeploymentHandle[Any],
        job: SegmentationJob,
        max_attempts: int,
        silence_timeout_s: float,
        replacement_s: float = REPLACEMENT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._recognize = segmenter.options(method_name="recognize", stream=True)
        self._job = job
        self._losses = Losses(Tries(max_attempts, replacement_s=replacement_s), clock)
        self._silence_timeout_s = silence_timeout_s
        self._next_index = 0
        self.end = RecordingEnd(0)
        """Set once all utterances have been yielded."""

    async def utterances(self) -> AsyncGenerator[Utterance]:
        """Yields the utterances in order.

        Raises:
            RecognitionFailed: it cost as many segmenters as it may.
            NotReady: no live segmenter was found in time.
            DeadlineExceeded: the request's deadline passed.
            RayTaskError: around what the segmenter raised.
        """
        losses = self._losses
        while True:
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
                    losses.got_further()
                losses.add(error, trouble)
                if losses.too_long:
                    raise NotReady("vad") from None
                if losses.too_many:
                    self._give_up(error)
            await pause(losses.num_in_a_row, trouble, "vad", self._job.origin)

    def _give_up(self, error: BaseException) -> NoReturn:
        if isinstance(error, DeploymentUnavailableError):
            raise NotReady("vad") from None
        raise RecognitionFailed(f"{self._losses.num_counted} segmenters were lost over it")

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
