"""Speaker labels between the deployments: windows from the segmenter, labels at the ingress."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError

from serve_app.api.service import TranscriptionJob
from serve_app.core.errors import DeadlineExceeded, InvalidParameter, NotReady
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
from serve_app.core.speakers import Diarization, SpeakerOptions, SpeakerWindows
from serve_app.deployments import retries
from serve_app.deployments import segmenter as module
from serve_app.deployments.ingress import HandleTranscriptionService
from serve_app.deployments.segmenter import SegmenterReplica
from serve_app.scheduling.backoff import Backoff
from serve_app.settings import Settings
from serve_app.speakers.diarization import DiarizationTask
from serve_app.transcript.transcript import TranscriptEvent
from tests.deployments.conftest import Recorded
from tests.fakes.engines import FakeVad
from tests.fakes.handles import FakeHandle, Script, task_error
from tests.fakes.voices import diarization_of, windows_of
from tests.transcript.test_segmentation import wav

CONTEXT = RequestContext("request")
READINESS = StageReadiness("vad", "cpu", "pack", "abc")
HEARD = Recognition((Token("一", 0, 100, 0.9),))
TWO_VOICES = wav((1, 0), (2, 500), (1, 0), (2, 5000), (1, 0))
DIED = ActorDiedError()
TIMEOUT_S = 20.0


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch, recorded: Recorded) -> None:
    monkeypatch.setattr(retries, "_BACKOFF", Backoff(0.0001, 0.0001))


class EmbedderHandle(FakeHandle):
    """Embeds what it gets, after the errors of its script."""

    async def _call(self, argument: object = None) -> object:
        self.asked.append(argument)
        error = next(self._calls, None)
        if isinstance(error, BaseException):
            raise error
        assert isinstance(argument, list)
        return [windows_of(chunk) for chunk in argument]


class RecognizerHandle(FakeHandle):
    async def _call(self, argument: object = None) -> object:
        self.asked.append(argument)
        assert isinstance(argument, list)
        return [HEARD] * len(argument)


Open = Callable[..., tuple[SegmenterReplica, FakeHandle]]


@pytest.fixture
async def segmenter_with(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Open]:
    loaded = SimpleNamespace(engine=FakeVad(), readiness=READINESS)
    monkeypatch.setattr(module, "load_vad", lambda settings: loaded)
    opened: list[SegmenterReplica] = []

    def open_replica(*errors: BaseException) -> tuple[SegmenterReplica, FakeHandle]:
        embedder = EmbedderHandle(errors)
        settings = Settings.model_validate({"max_attempts": 2, "segmenter": {"max_group_s": 0}})
        replica = SegmenterReplica(settings, RecognizerHandle([]).handle, embedder.handle)
        opened.append(replica)
        return replica, embedder

    yield open_replica
    for replica in opened:
        await replica._thread.close()
        await replica._metrics._sampler.stop()


async def segmented(
    replica: SegmenterReplica, audio: FileBytes = TWO_VOICES, *, speakers: bool = True
) -> tuple[list[Utterance], RecordingEnd]:
    job = SegmentationJob(CONTEXT, audio, True, speakers=speakers)
    *utterances, end = [event async for event in replica.recognize(job) if event is not None]
    assert isinstance(end, RecordingEnd)
    return [one for one in utterances if isinstance(one, Utterance)], end


async def test_each_utterance_has_the_windows_of_its_speech(segmenter_with: Open) -> None:
    replica, embedder = segmenter_with()
    utterances, end = await segmented(replica)
    assert [one.status for one in utterances] == ["done", "done"]
    voices = [one.voices for one in utterances if one.voices is not None]
    assert [one.start_ms.tolist() for one in voices] == [[1000, 1500], [4000, 4500]]
    assert [one.end_ms.tolist() for one in voices] == [[2500, 3000], [5500, 6000]]
    assert len(embedder.asked) == 2
    assert end.notices == ()
    assert end.cost.embed_s > 0


async def test_nothing_is_embedded_unless_labels_are_asked_for(segmenter_with: Open) -> None:
    replica, embedder = segmenter_with()
    utterances, end = await segmented(replica, speakers=False)
    assert [one.voices for one in utterances] == [None, None]
    assert embedder.asked == []
    assert end.cost.embed_s == 0


async def test_lost_embedder_is_replaced_by_another(segmenter_with: Open) -> None:
    replica, embedder = segmenter_with(DIED)
    utterances, end = await segmented(replica)
    assert all(one.voices is not None for one in utterances)
    assert len(embedder.asked) == 3
    assert end.cost.num_retries == 1
    assert end.notices == ()


async def test_group_that_fails_for_good_loses_only_its_labels(segmenter_with: Open) -> None:
    replica, _ = segmenter_with(task_error(ZeroDivisionError("bug")))
    utterances, end = await segmented(replica)
    assert [one.status for one in utterances] == ["done", "done"]
    assert [one.voices is None for one in utterances] == [True, False]
    (notice,) = end.notices
    assert "from 1.000 s to 3.000 s:" in notice


async def test_missed_deadline_at_the_embedder_ends_the_recording(segmenter_with: Open) -> None:
    replica, _ = segmenter_with(task_error(DeadlineExceeded(1.0)))
    with pytest.raises(DeadlineExceeded):
        await segmented(replica)


async def test_recording_is_embedded_no_further_where_no_replica_is_left(
    segmenter_with: Open,
) -> None:
    replica, embedder = segmenter_with(NotReady("speakers"))
    audio = wav(*[(1, 0), (2, 500)] * 12)
    utterances, end = await segmented(replica, audio)
    assert len(utterances) == 12
    assert all(one.status == "done" for one in utterances)
    assert len(embedder.asked) < 12
    (notice,) = end.notices
    assert "more ranges" in notice


async def test_embedding_runs_beside_recognition(segmenter_with: Open) -> None:
    replica, embedder = segmenter_with()
    embedding, recognizing = asyncio.Event(), asyncio.Event()

    async def recognize(chunks: list[Chunk]) -> list[Recognition]:
        recognizing.set()
        await asyncio.wait_for(embedding.wait(), TIMEOUT_S)
        return [HEARD] * len(chunks)

    async def embed(argument: Any = None) -> list[SpeakerWindows]:
        embedding.set()
        await asyncio.wait_for(recognizing.wait(), TIMEOUT_S)
        return [windows_of(chunk) for chunk in argument]

    replica._recognizer.recognize = recognize  # type: ignore[method-assign,assignment]
    embedder._call = embed  # type: ignore[method-assign]
    utterances, _ = await segmented(replica)
    assert all(one.voices is not None for one in utterances)


def utterance(index: int, start_ms: int, voice: int) -> Utterance:
    chunk = Chunk(CONTEXT, index, start_ms, np.full(32_000, voice, np.int16))
    tokens = (Token("一", start_ms, start_ms + 500, 0.9),)
    end_ms = start_ms + 2000
    return Utterance(index, start_ms, end_ms, "done", tokens, voices=windows_of(chunk))


SPOKEN = [utterance(0, 0, 500), utterance(1, 2000, 5000)]
END = RecordingEnd(4000, tuple(one.summary for one in SPOKEN))
LABELS = Diarization((), ("A",))
TWO = SpeakerOptions(2)


class Service:
    def __init__(self, streams: Script, embedder: Script, **settings: Any) -> None:
        self.segmenter = FakeHandle((), streams)
        self.embedder = FakeHandle(embedder)
        self.tested = HandleTranscriptionService(
            Settings.model_validate({"max_attempts": 2, **settings}),
            self.segmenter.handle,
            FakeHandle(()).handle,
            None,
            self.embedder.handle,
        )

    async def events(self, speakers: SpeakerOptions | None = TWO) -> list[TranscriptEvent]:
        job = TranscriptionJob(
            CONTEXT, np.zeros(4, np.uint8), frozenset({"vad", "asr"}), speakers=speakers
        )
        return [event async for event in self.tested.transcribe(job)]

    async def end(self) -> RecordingEnd:
        end = (await self.events())[-1]
        assert isinstance(end, RecordingEnd)
        return end


async def test_all_windows_are_told_apart_in_one_call_at_the_end() -> None:
    service = Service([[None, *SPOKEN, END]], [LABELS])
    *_, end = await service.events()
    assert isinstance(end, RecordingEnd)
    assert end.diarization == LABELS
    (task,) = service.embedder.asked
    assert isinstance(task, DiarizationTask)
    assert task.options == TWO
    assert task.windows.start_ms.tolist() == [0, 500, 2000, 2500]
    assert diarization_of(task.windows).labels == ("A", "B")
    assert service.segmenter.asked[0].speakers


async def test_ingress_does_not_diarize_unless_asked() -> None:
    service = Service([[*SPOKEN, END]], [])
    *_, end = await service.events(speakers=None)
    assert isinstance(end, RecordingEnd)
    assert end.diarization is None
    assert service.embedder.asked == []
    assert not service.segmenter.asked[0].speakers


async def test_recording_without_speech_has_no_speakers() -> None:
    service = Service([[RecordingEnd(4000)]], [])
    assert (await service.end()).diarization == Diarization()


async def test_windows_of_a_lost_segmenter_are_not_collected_twice() -> None:
    service = Service([[SPOKEN[0], DIED], [*SPOKEN, END]], [LABELS])
    assert (await service.end()).diarization == LABELS
    assert service.embedder.asked[0].windows.start_ms.tolist() == [0, 500, 2000, 2500]


async def test_lost_diarization_is_repeated_and_counted() -> None:
    service = Service([[*SPOKEN, END]], [DIED, LABELS])
    end = await service.end()
    assert end.diarization == LABELS
    assert end.cost.num_retries == 1


@pytest.mark.parametrize(
    "embedder", [[DIED, DIED], [task_error(ZeroDivisionError("bug"))], [NotReady("speakers")]]
)
async def test_diarization_that_fails_for_good_leaves_the_text_and_a_notice(
    embedder: Script,
) -> None:
    service = Service([[*SPOKEN, END]], embedder)
    sentences = await service.events()
    end = sentences.pop()
    assert len(sentences) == 2
    assert isinstance(end, RecordingEnd)
    assert end.diarization is None
    assert "no speaker labels" in end.notices[0]


@pytest.mark.parametrize(
    "error", [DeadlineExceeded(1.0), InvalidParameter("known_speaker_references", "is noise")]
)
async def test_callers_fault_and_missed_deadline_are_raised(error: Exception) -> None:
    service = Service([[*SPOKEN, END]], [task_error(error)])
    with pytest.raises(type(error)):
        await service.events()


async def test_recording_whose_embedding_failed_has_no_labels() -> None:
    silent = [Utterance(0, 0, 2000, "done", SPOKEN[0].tokens)]
    end = RecordingEnd(2000, (silent[0].summary,), notices=("labels may be missing",))
    service = Service([[*silent, end]], [])
    answered = await service.end()
    assert answered.diarization is None
    assert answered.notices == end.notices


async def test_readiness_asks_the_speaker_embedder() -> None:
    ready = {stage: StageReadiness(stage, "cpu", "p", "c") for stage in ("asr", "speakers")}
    service = Service([], [ready["speakers"]])
    service.segmenter._calls = iter([None])
    service.tested._recognizer = FakeHandle([ready["asr"]]).handle
    assert await service.tested.readiness() == [ready["asr"], ready["speakers"]]
