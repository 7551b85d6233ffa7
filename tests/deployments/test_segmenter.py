"""The segmenter replica, with a scripted recognizer handle and without Ray."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace

import numpy as np
import pytest

from serve_app.core.errors import AudioError, DeadlineExceeded
from serve_app.core.records import (
    Chunk,
    FileBytes,
    Recognition,
    RecordingEnd,
    RequestContext,
    SegmentationJob,
    StageReadiness,
    Token,
    Utterance,
)
from serve_app.deployments import segmenter as module
from serve_app.deployments.segmenter import SegmenterReplica
from serve_app.scheduling.micro_batcher import EngineStuck
from serve_app.settings import Settings
from tests.deployments.conftest import Recorded
from tests.fakes.engines import FakeVad
from tests.fakes.handles import FakeHandle, task_error
from tests.transcript.test_segmentation import wav

READINESS = StageReadiness("vad", "cpu", "pack", "abc")
HEARD = Recognition((Token("一", 0, 100, 0.9),))
SPEECH = wav((1, 0), (1.5, 500), (1, 0))
TIMEOUT_S = 20.0

Open = Callable[..., tuple[SegmenterReplica, FakeHandle]]


@pytest.fixture
async def replica_of(monkeypatch: pytest.MonkeyPatch, recorded: Recorded) -> AsyncIterator[Open]:
    loaded = SimpleNamespace(engine=FakeVad(), readiness=READINESS)
    monkeypatch.setattr(module, "load_vad", lambda settings: loaded)
    opened: list[SegmenterReplica] = []

    def open_replica(*answers: object, **settings: object) -> tuple[SegmenterReplica, FakeHandle]:
        handle = FakeHandle(answers)
        replica = SegmenterReplica(Settings.model_validate(settings), handle.handle)
        opened.append(replica)
        return replica, handle

    yield open_replica
    for replica in opened:
        await replica._thread.close()
        await replica._metrics._sampler.stop()


def job(audio: FileBytes = SPEECH, *, use_vad: bool = True) -> SegmentationJob:
    return SegmentationJob(RequestContext("request"), audio, use_vad)


async def test_utterances_come_in_order_and_then_the_end(replica_of: Open) -> None:
    replica, handle = replica_of([HEARD])
    events = [event async for event in replica.recognize(job()) if event is not None]
    (utterance, end) = events
    assert isinstance(utterance, Utterance)
    assert isinstance(end, RecordingEnd)
    assert (utterance.start_ms, utterance.end_ms, utterance.status) == (1000, 2500, "done")
    assert end.duration_ms == 3500
    assert end.utterances == (utterance.summary,)
    (chunks,) = handle.asked
    assert [type(chunk) for chunk in chunks] == [Chunk]


async def test_chunks_and_decode_time_are_counted(replica_of: Open, recorded: Recorded) -> None:
    replica, _ = replica_of([HEARD])
    async for _event in replica.recognize(job()):
        pass
    assert recorded["paraserve_chunks_total"] == [(1, {"status": "done"})]
    assert [tags for _, tags in recorded["paraserve_stage_work_seconds"]] == [{"stage": "vad"}]


async def test_file_that_is_not_audio_is_an_audio_error(replica_of: Open) -> None:
    replica, handle = replica_of()
    with pytest.raises(AudioError):
        async for _ in replica.recognize(job(np.frombuffer(b"not audio" * 100, np.uint8))):
            pass
    assert handle.asked == []
    assert (await replica.record_autoscaling_stats())["backlog_audio_s"] == 0


async def test_missed_deadline_at_the_recognizer_ends_the_recording(replica_of: Open) -> None:
    replica, _ = replica_of(task_error(DeadlineExceeded(1.0)))
    with pytest.raises(DeadlineExceeded):
        async for _event in replica.recognize(job()):
            pass
    assert (await replica.record_autoscaling_stats())["backlog_audio_s"] == 0


async def test_backlog_is_reported_while_chunks_wait_and_forgotten_on_cancel(
    replica_of: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica, _ = replica_of()
    asked = asyncio.Event()

    async def never(chunks: list[Chunk]) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(replica._recognizer, "recognize", never)
    events = replica.recognize(job())
    first = asyncio.ensure_future(anext(events))
    await asyncio.wait_for(asked.wait(), TIMEOUT_S)
    assert replica._backlog.num_recordings == 1
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await events.aclose()
    assert replica._backlog.num_recordings == 0
    assert (await replica.record_autoscaling_stats())["backlog_audio_s"] == 0


async def test_health_check_fails_once_the_decoding_thread_is_stuck(replica_of: Open) -> None:
    replica, _ = replica_of()
    gate, entered = threading.Event(), threading.Event()

    def block() -> None:
        entered.set()
        assert gate.wait(TIMEOUT_S)

    await replica.check_health()
    step = asyncio.ensure_future(replica._thread.run(block, RequestContext("request")))
    assert await asyncio.to_thread(entered.wait, TIMEOUT_S)
    await replica.check_health()
    replica._settings = replica._settings.model_copy(update={"stuck_after_s": 0.0})
    with pytest.raises(EngineStuck):
        await replica.check_health()
    gate.set()
    await asyncio.gather(step, return_exceptions=True)


async def test_replica_describes_its_vad_and_none_without_one(replica_of: Open) -> None:
    replica, _ = replica_of()
    assert await replica.describe() == READINESS
    replica, _ = replica_of(profile="asr-only")
    assert await replica.describe() is None
