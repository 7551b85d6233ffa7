"""A recording whose segmenters are lost: nothing twice, nothing missing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from ray.exceptions import ActorDiedError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError, ReplicaUnavailableError

from serve_app.core.errors import CorruptAudio, DeadlineExceeded, NotReady, RecognitionFailed
from serve_app.core.records import RecordingEnd, RequestContext, SegmentationJob, Utterance
from serve_app.deployments import retries
from serve_app.deployments.handles import RemoteRecording
from serve_app.scheduling.backoff import Backoff
from serve_app.scheduling.micro_batcher import BatcherClosed, EngineStuck
from tests.fakes.handles import FakeHandle, Script, task_error

DIED = ActorDiedError()
JOB = SegmentationJob(RequestContext("request"), np.zeros(4, np.uint8), use_vad=True)
FIRST, SECOND, THIRD = (Utterance(index, index, index + 1, "empty") for index in range(3))
END = RecordingEnd(3)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_BACKOFF", Backoff(0.0001, 0.0001))


def recording(
    streams: Script, clock: Callable[[], float] = time.monotonic, job: SegmentationJob = JOB
) -> RemoteRecording:
    handle = FakeHandle([], streams).handle
    return RemoteRecording(handle, job, 3, 60, replacement_s=120, clock=clock)


class Ticking:
    """A clock that moves on by as much each time it is read."""

    def __init__(self, step_s: float) -> None:
        self._now_s, self._step_s = 0.0, step_s

    def __call__(self) -> float:
        self._now_s += self._step_s
        return self._now_s


async def test_heartbeats_are_not_passed_on() -> None:
    remote = recording([[None, FIRST, None, SECOND, END]])
    assert [utterance async for utterance in remote.utterances()] == [FIRST, SECOND]
    assert remote.end == END


async def test_second_segmenter_continues_where_the_first_one_died() -> None:
    remote = recording([[FIRST, DIED], [FIRST, SECOND, THIRD, END]])
    assert [utterance async for utterance in remote.utterances()] == [FIRST, SECOND, THIRD]
    assert remote.end == END


async def test_deaths_are_counted_anew_once_the_recording_has_got_further() -> None:
    got_further = [[FIRST, DIED], [FIRST, SECOND, DIED], [FIRST, SECOND, THIRD, DIED]]
    remote = recording([[DIED], [DIED], *got_further, [FIRST, SECOND, THIRD, END]])
    assert [utterance async for utterance in remote.utterances()] == [FIRST, SECOND, THIRD]


async def test_recording_that_no_segmenter_survives_fails() -> None:
    remote = recording([[DIED]] * 9)
    with pytest.raises(RecognitionFailed, match="3 segmenters"):
        async for _ in remote.utterances():
            pass


async def test_cancellation_at_the_other_end_is_a_loss_like_others() -> None:
    remote = recording([[FIRST, asyncio.CancelledError()], [FIRST, SECOND, END]])
    assert [utterance async for utterance in remote.utterances()] == [FIRST, SECOND]


async def test_bad_audio_is_reported_without_a_retry() -> None:
    with pytest.raises(CorruptAudio):
        async for _ in recording([[task_error(CorruptAudio("x"))], [FIRST, END]]).utterances():
            pass


# What calls meet until the replacement is there: a segmenter that takes nothing any more.
CLOSED = task_error(BatcherClosed())
WAITED = task_error(EngineStuck("a batch has been running for 120 s", begun=False))
RAN = task_error(EngineStuck("a batch has been running for 120 s"))
GONE = ReplicaUnavailableError("r")


@pytest.mark.parametrize("first", [WAITED, CLOSED, DIED, RAN])
async def test_clip_beside_a_file_that_gets_its_segmenter_replaced_is_transcribed(
    first: Exception,
) -> None:
    # 25 s, at a second a try, in which each call is refused at once.
    streams: Script = [[None, first], *[[CLOSED]] * 12, *[[GONE]] * 13, [FIRST, SECOND, END]]
    remote = recording(streams, Ticking(1.0))
    assert [utterance async for utterance in remote.utterances()] == [FIRST, SECOND]


async def test_error_counts_only_segmenters_that_died_with_the_recording() -> None:
    lost = [[None, WAITED], [None, RAN], [CLOSED], [None, DIED], [CLOSED], [CLOSED], [RAN]]
    with pytest.raises(RecognitionFailed, match="3 segmenters were lost"):
        async for _ in recording(lost).utterances():
            pass


async def test_wait_for_a_replacement_is_bounded() -> None:
    with pytest.raises(NotReady):
        async for _ in recording([[CLOSED]] * 1000, Ticking(1.0)).utterances():
            pass


async def test_wait_begins_anew_once_a_live_segmenter_was_found() -> None:
    streams: Script = [*[[CLOSED]] * 50, [None, DIED], *[[CLOSED]] * 50, [FIRST, END]]
    remote = recording(streams, Ticking(1.0))
    assert [utterance async for utterance in remote.utterances()] == [FIRST]


async def test_wait_for_a_replacement_ends_with_the_deadline() -> None:
    soon = replace(JOB, context=replace(JOB.context, deadline=time.time() + 0.05))
    with pytest.raises(DeadlineExceeded):
        async for _ in recording([[CLOSED]] * 100_000, job=soon).utterances():
            pass


async def test_deployment_that_failed_to_start_raises_not_ready() -> None:
    failed = DeploymentUnavailableError(DeploymentID("Segmenter"))
    with pytest.raises(NotReady):
        async for _ in recording([[failed]] * 3).utterances():
            pass
