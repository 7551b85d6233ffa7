"""Clients of other deployments: the recognizer for the segmenter, the segmenter for the ingress.

If a replica is lost, the call is repeated on another one within the limits of a `RetryPolicy`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, NoReturn, cast

from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from serve_app.core.errors import NotReady, RecognitionFailed
from serve_app.core.records import (
    Chunk,
    ChunkFailure,
    Recognition,
    RecordingEnd,
    RequestContext,
    SegmentationJob,
    Utterance,
)
from serve_app.deployments.retries import (
    REPLACEMENT_S,
    FailureKind,
    Losses,
    ReplicaDied,
    RetryPolicy,
    call_until_answered,
    failure_kind_of,
    pause,
    wait_s,
)
from serve_app.inference.batched import BEGUN, AloneEvent
from serve_app.settings import Settings
from serve_app.transcript.fanout import poison_failure

_MAX_LONE_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class _Handles:
    """Handles of the two methods that recognize: a group, and a chunk alone."""

    whole: DeploymentHandle[Any]
    lone: DeploymentHandle[Any]


class RemoteRecognizer:
    """Has groups of chunks recognized, even if replicas die.

    If the replica of a group dies, the chunks are retried one by one, each with no other beside
    it, so that a further death identifies its chunk. A chunk under which
    `recognizer.max_deaths` replicas died fails; its neighbors do not.

    Args:
        handle: of the deployment.
        settings: of the whole application.
        clock: in seconds, monotonic.
    """

    def __init__(
        self,
        handle: DeploymentHandle[Any],
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._handle = handle
        self._models = tuple(settings.recognizer.models)
        self._handles: dict[str, _Handles] = {}
        self._max_deaths = settings.recognizer.max_deaths
        self._retry_policy = RetryPolicy(
            settings.max_attempts,
            settings.recognizer.call_timeout_s,
            settings.replacement_timeout_s,
        )

    async def recognize(self, chunks: list[Chunk]) -> list[Recognition | ChunkFailure]:
        """Returns a result per chunk, in order.

        Raises:
            DeadlineExceeded: the request's deadline passed.
            NotReady: the deployment failed to start, or no live replica was found in time.
            Exception: the last failure, once the policy allows no further replica.
        """
        try:
            return await call_until_answered(
                lambda: self._call(chunks),
                retry_policy=self._retry_policy,
                stage="asr",
                context=chunks[0].context,
                retry_deaths=False,
                clock=self._clock,
            )
        except ReplicaDied:
            await pause(1, "died", "asr", chunks[0].context)
        return [await self.recognize_alone(chunk) for chunk in chunks]

    async def recognize_alone(self, chunk: Chunk) -> Recognition | ChunkFailure:
        """Returns the chunk's result, or a failure `poison` if replicas die of it.

        A replica that is lost before it starts the chunk does not count.

        Raises:
            DeadlineExceeded: the request's deadline passed.
            NotReady: no live replica was found in time.
        """
        num_deaths = 0
        losses = Losses(replace(self._retry_policy, max_attempts=_MAX_LONE_ATTEMPTS), self._clock)
        while not losses.too_many:
            begun = False
            lost: BaseException = ConnectionError("the call ended without a result")
            failure_kind: FailureKind = "unreachable"
            try:
                async with aclosing(self._call_alone(chunk)) as events:
                    async for event in events:
                        if not isinstance(event, str):
                            return event
                        begun = event == BEGUN
            except BaseException as error:
                kind = failure_kind_of(error)
                if kind is None:
                    raise
                lost, failure_kind = error, kind
            num_deaths += begun and failure_kind == "died"
            if (failure := poison_failure(num_deaths, self._max_deaths)) is not None:
                return failure
            losses.add(lost, failure_kind)
            if losses.too_long:
                raise NotReady("asr")
            await pause(losses.num_in_a_row, failure_kind, "asr", chunk.context)
        return ChunkFailure("unavailable", f"{_MAX_LONE_ATTEMPTS} calls for it were lost")

    async def _call(self, chunks: list[Chunk]) -> list[Recognition | ChunkFailure]:
        whole = self._handles_for(chunks[0]).whole
        results: list[Recognition | ChunkFailure] = await whole.remote(chunks)
        return results

    def _handles_for(self, chunk: Chunk) -> _Handles:
        """Handles that prefer replicas which have the chunk's model loaded."""
        name = chunk.recognition_options.model or self._models[0]
        if name not in self._handles:
            handle = self._handle
            if len(self._models) > 1:
                handle = handle.options(multiplexed_model_id=name)
            self._handles[name] = _Handles(
                handle.transcribe, handle.options(method_name="transcribe_alone", stream=True)
            )
        return self._handles[name]

    def _call_alone(self, chunk: Chunk) -> AsyncGenerator[AloneEvent]:
        return stream_call(
            lambda: self._handles_for(chunk).lone.remote(chunk),
            chunk.context,
            first_s=self._retry_policy.timeout_s,
            next_s=self._retry_policy.timeout_s,
        )


class RemoteRecording:
    """The utterances of a recording; if their segmenter is lost, another one continues.

    The work is deterministic, so the second segmenter yields the same utterances as the first.
    It is given those that were passed on before, which are not recognized again, and are skipped
    here.

    Args:
        segmenter: handle of the segmenter deployment.
        job: the recording.
        max_attempts: segmenters that may be lost without progress in between.
        silence_timeout_s: longest time without a heartbeat from a segmenter that has started.
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
        self._losses = Losses(RetryPolicy(max_attempts, replacement_s=replacement_s), clock)
        self._silence_timeout_s = silence_timeout_s
        self._passed_on: list[Utterance] = []
        self.end = RecordingEnd(0)
        """Set once all utterances have been yielded."""

    async def utterances(self) -> AsyncGenerator[Utterance]:
        """Yields the utterances in order.

        Raises:
            RecognitionFailed: too many segmenters were lost.
            NotReady: no live segmenter was found in time.
            DeadlineExceeded: the request's deadline passed.
            RayTaskError: around what the segmenter raised.
        """
        losses = self._losses
        while True:
            reached = len(self._passed_on)
            try:
                async with aclosing(self._events()) as events:
                    async for utterance in events:
                        yield utterance
                return
            except BaseException as error:
                failure_kind = failure_kind_of(error)
                if failure_kind is None:
                    raise
                if len(self._passed_on) > reached:
                    losses.got_further()
                losses.add(error, failure_kind)
                if losses.too_long:
                    raise NotReady("vad") from None
                if losses.too_many:
                    self._give_up(error)
            await pause(losses.num_in_a_row, failure_kind, "vad", self._job.context)

    def _give_up(self, error: BaseException) -> NoReturn:
        if isinstance(error, DeploymentUnavailableError):
            raise NotReady("vad") from None
        raise RecognitionFailed(f"{self._losses.num_counted} segmenters were lost with it")

    async def _events(self) -> AsyncGenerator[Utterance]:
        job = self._job
        if self._passed_on:
            job = replace(job, known=(*job.known, *self._passed_on))
        stream = stream_call(
            lambda: self._recognize.remote(job),
            job.context,
            first_s=None,
            next_s=self._silence_timeout_s,
        )
        async with aclosing(stream):
            async for event in stream:
                if isinstance(event, RecordingEnd):
                    self.end = event
                elif isinstance(event, Utterance) and event.index >= len(self._passed_on):
                    self._passed_on.append(event)
                    yield event


async def stream_call(
    call: Callable[[], Any], context: RequestContext, *, first_s: float | None, next_s: float | None
) -> AsyncGenerator[Any]:
    """Yields the items of a streaming call; leaving early cancels the call.

    Args:
        call: makes the call.
        context: of the request; its deadline bounds every wait.
        first_s: longest wait for the first item, which may include a wait for a replica.
        next_s: longest wait for each further item.

    Raises:
        TimeoutError: an item did not come in time.
        DeadlineExceeded: the request's deadline has passed.
    """
    patience_s = first_s
    responses = cast(DeploymentResponseGenerator[Any], call())
    try:
        while True:
            async with asyncio.timeout(wait_s(context, patience_s)):
                try:
                    item = await anext(responses)
                except StopAsyncIteration:
                    return
            yield item
            patience_s = next_s
    finally:
        responses.cancel()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
