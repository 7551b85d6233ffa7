"""A recording whose segmenters are lost: nothing twice, nothing missing."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from ray.exceptions import ActorDiedError

from serve_app.core.chunks import RecordingEnd, SegmentationJob, Utterance
from serve_app.core.errors import CorruptAudio, RecognitionFailed
from serve_app.core.origin import Origin
from serve_app.deployments import retrying
from serve_app.deployments.recording import RemoteRecording
from tests.fakes.handles import FakeHandle, Script, task_error

DIED = ActorDiedError()
JOB = SegmentationJob(Origin("request"), np.zeros(4, np.uint8), use_vad=True)
FIRST, SECOND, THIRD = (Utterance(index, index, index + 1, "empty") for index in range(3))
END = RecordingEnd(3)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "_FIRST_DELAY_S", 0.0001)


def recording(streams: Script) -> RemoteRecording:
    return RemoteRecording(FakeHandle([], streams).handle, JOB, 3, silence_timeout_s=60)


async def test_signs_of_life_are_not_passed_on() -> None:
    remote = recording([[None, FIRST, None, SECOND, END]])
    assert [utterance async for utterance in remote.utterances()] == [FIRST, SECOND]
    assert remote.end == END


async def test_second_segmenter_goes_on_where_the_first_one_died() -> None:
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


async def test_bad_audio_is_told_and_not_tried_again() -> None:
    with pytest.raises(CorruptAudio):
        async for _ in recording([[task_error(CorruptAudio("x"))], [FIRST, END]]).utterances():
            pass
