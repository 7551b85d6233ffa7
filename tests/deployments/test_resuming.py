"""A recording that goes on where an earlier attempt ended: the same transcript, less work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError

from serve_app.api.service import TranscriptionJob
from serve_app.core.records import (
    Chunk,
    ChunkFailure,
    FileBytes,
    Recognition,
    RecordingEnd,
    RequestContext,
    Stage,
    StageReadiness,
    Token,
    Utterance,
)
from serve_app.core.speakers import SpeakerOptions
from serve_app.deployments import retries
from serve_app.deployments import segmenter as module
from serve_app.deployments.ingress import HandleTranscriptionService
from serve_app.deployments.segmenter import SegmenterReplica
from serve_app.scheduling.backoff import Backoff
from serve_app.settings import Settings
from serve_app.speakers.diarization import DiarizationTask
from serve_app.transcript.sentences import PunctuationResult, PunctuationTask, punctuate_tasks
from serve_app.transcript.transcript import TranscriptEvent
from tests.deployments.conftest import Recorded
from tests.fakes.calls import file_of
from tests.fakes.engines import FakePunctuator, FakeVad
from tests.fakes.handles import FakeHandle
from tests.fakes.voices import diarization_of, windows_of

READINESS = StageReadiness("vad", "cpu", "pack", "abc")
ALL_STAGES: frozenset[Stage] = frozenset({"vad", "asr", "punctuation", "speakers"})
WORDS = "一二三句五六"
TWO = SpeakerOptions(2)


def recording(num_channels: int) -> FileBytes:
    """Returns 40 s with 10 stretches of speech on each channel, loud ones and quiet ones."""
    pcm = np.zeros((num_channels, 40 * 16_000), np.int16)
    for channel in range(num_channels):
        for number in range(10):
            start = int((4 * number + 0.7 * channel) * 16_000)
            pcm[channel, start : start + 32_000 + 1600 * number] = 500 + 900 * (number % 2) + number
    return file_of(pcm.T)


def heard(chunk: Chunk) -> Recognition:
    """Says something that depends on all samples of the chunk."""
    number = int(np.abs(chunk.pcm.astype(np.int64)).sum() // 997)
    spoken = [WORDS[(number + place) % len(WORDS)] for place in range(1 + number % 4)]
    return Recognition(
        tuple(
            Token(word, 200 * at, 200 * at + 150, 0.5 + at / 10) for at, word in enumerate(spoken)
        ),
        model="pack-a" if number % 2 else None,
        language="zh",
    )


class Recognizers(FakeHandle):
    """Hears what is in the chunks, except in those that it is told to fail."""

    def __init__(self) -> None:
        super().__init__(())
        self.fails_at_ms: set[int] = set()

    @property
    def chunks(self) -> list[Chunk]:
        return [chunk for group in self.asked for chunk in group]

    async def _call(self, argument: object = None) -> object:
        assert isinstance(argument, list)
        self.asked.append(argument)
        return [
            ChunkFailure("engine", "it broke") if c.start_ms in self.fails_at_ms else heard(c)
            for c in argument
        ]


class Embedders(Recognizers):
    async def _call(self, argument: object = None) -> object:
        if not isinstance(argument, list):
            assert isinstance(argument, DiarizationTask)
            return diarization_of(argument.windows)
        self.asked.append(argument)
        return [windows_of(chunk) for chunk in argument]


class Punctuators(FakeHandle):
    async def _call(self, argument: object = None) -> PunctuationResult:
        assert isinstance(argument, PunctuationTask)
        return punctuate_tasks(FakePunctuator(), [argument])[0]


class Segmenters(FakeHandle):
    """Passes calls on to a replica, which dies once where it is told to."""

    def __init__(self, replica: SegmenterReplica) -> None:
        super().__init__(())
        self._replica = replica
        self.dies_after: int | None = None

    def _stream(self, argument: Any) -> Any:
        self.asked.append(argument)
        dies_after, self.dies_after = self.dies_after, None

        async def events() -> AsyncIterator[object]:
            num_sent = 0
            async for event in self._replica.recognize(argument):
                if num_sent == dies_after:
                    raise ActorDiedError
                num_sent += isinstance(event, Utterance)
                yield event

        return _Stream(events())


class _Stream:
    def __init__(self, events: AsyncIterator[object]) -> None:
        self._events = events

    def __aiter__(self) -> AsyncIterator[object]:
        return self._events

    async def __anext__(self) -> object:
        return await anext(self._events)

    def cancel(self) -> None:
        pass


@dataclass
class Pipeline:
    """The service over one segmenter replica; the models are fakes."""

    service: HandleTranscriptionService
    segmenters: Segmenters
    recognizers: Recognizers
    embedders: Embedders

    async def run(
        self, job: TranscriptionJob, known: Iterable[Utterance] = ()
    ) -> tuple[list[TranscriptEvent], list[Utterance]]:
        """Returns the transcript's events and the utterances that were observed."""
        self.recognizers.asked.clear()
        self.embedders.asked.clear()
        seen: list[Utterance] = []
        again = replace(job, known=tuple(known))
        events = [event async for event in self.service.transcribe(again, seen.append)]
        return events, seen


@pytest.fixture
async def pipeline(
    monkeypatch: pytest.MonkeyPatch, recorded: Recorded
) -> AsyncIterator[Callable[..., Pipeline]]:
    monkeypatch.setattr(retries, "_BACKOFF", Backoff(0.0001, 0.0001))
    loaded = SimpleNamespace(engine=FakeVad(), readiness=READINESS)
    monkeypatch.setattr(module, "load_vad", lambda settings: loaded)
    opened: list[SegmenterReplica] = []

    def open_pipeline() -> Pipeline:
        settings = Settings.model_validate(
            {
                "stages": ["vad", "asr", "punctuation", "speakers"],
                "segmenter": {"max_segment_s": 5, "max_group_s": 8},
            }
        )
        recognizers, embedders = Recognizers(), Embedders()
        replica = SegmenterReplica(settings, recognizers.handle, embedders.handle)
        opened.append(replica)
        segmenters = Segmenters(replica)
        service = HandleTranscriptionService(
            settings,
            segmenters.handle,
            recognizers.handle,
            Punctuators(()).handle,
            embedders.handle,
        )
        return Pipeline(service, segmenters, recognizers, embedders)

    yield open_pipeline
    for replica in opened:
        await replica._thread.close()
        await replica._metrics._sampler.stop()


def job_of(
    *, vad: bool = True, separate: bool = False, speakers: SpeakerOptions | None = None
) -> TranscriptionJob:
    return TranscriptionJob(
        RequestContext("job", background=True),
        recording(2 if separate else 1),
        ALL_STAGES if vad else ALL_STAGES - {"vad"},
        speakers=speakers,
        separate_channels=separate,
    )


def positions(chunks: Sequence[Chunk | Utterance]) -> list[tuple[int, int, int | None]]:
    return sorted((one.index, one.start_ms, one.channel) for one in chunks)


@pytest.mark.parametrize("speakers", [None, TWO], ids=["plain", "speakers"])
@pytest.mark.parametrize("separate", [False, True], ids=["mix", "channels"])
@pytest.mark.parametrize("vad", [True, False], ids=["vad", "no-vad"])
async def test_resumed_transcript_equals_the_uninterrupted_one(
    pipeline: Callable[..., Pipeline],
    vad: bool,
    separate: bool,
    speakers: SpeakerOptions | None,
) -> None:
    pipes = pipeline()
    job = job_of(vad=vad, separate=separate, speakers=speakers)
    expected, utterances = await pipes.run(job)
    assert positions(utterances) == positions(pipes.recognizers.chunks)
    assert len(utterances) >= 8
    end = expected[-1]
    assert isinstance(end, RecordingEnd)
    assert (end.diarization is None) == (speakers is None)

    # All before a point, all but one in the middle, every other, all, and in no order.
    for known in (
        utterances[:4],
        [*utterances[:3], *utterances[4:]],
        utterances[::2],
        utterances,
        utterances[5:1:-1],
    ):
        events, again = await pipes.run(job, known)
        assert events == expected
        assert again == utterances
        missing = [one for one in utterances if one not in known]
        assert positions(pipes.recognizers.chunks) == positions(missing)
        embedded = missing if speakers is not None else []
        assert positions(pipes.embedders.chunks) == positions(embedded)


@pytest.mark.parametrize(
    "change",
    [{"start_ms": 1}, {"end_ms": 1}, {"channel": 0}, {"index": 99}],
    ids=lambda change: next(iter(change)),
)
async def test_utterance_of_another_chunk_is_not_taken(
    pipeline: Callable[..., Pipeline], change: dict[str, int]
) -> None:
    pipes = pipeline()
    expected, utterances = await pipes.run(job_of())
    other = replace(utterances[2], tokens=(), status="empty", **change)  # type: ignore[arg-type]
    events, _ = await pipes.run(job_of(), [other])
    assert events == expected
    assert positions(pipes.recognizers.chunks) == positions(utterances)


async def test_failed_utterances_are_tried_again_where_they_are_left_out(
    pipeline: Callable[..., Pipeline],
) -> None:
    pipes = pipeline()
    expected, utterances = await pipes.run(job_of())
    broken_at_ms = utterances[3].start_ms
    pipes.recognizers.fails_at_ms.add(broken_at_ms)
    _, first = await pipes.run(job_of())
    assert [one.status for one in first].count("failed") == 1
    pipes.recognizers.fails_at_ms.clear()
    events, _ = await pipes.run(job_of(), [one for one in first if one.status != "failed"])
    assert events == expected
    assert [chunk.start_ms for chunk in pipes.recognizers.chunks] == [broken_at_ms]


async def test_known_utterance_without_windows_is_told_in_the_notice(
    pipeline: Callable[..., Pipeline],
) -> None:
    pipes = pipeline()
    job = job_of(speakers=TWO)
    _, utterances = await pipes.run(job)
    events, _ = await pipes.run(job, [replace(one, voices=None) for one in utterances[:1]])
    end = events[-1]
    assert isinstance(end, RecordingEnd)
    (notice,) = end.notices
    assert "from 0.000 s to 2.000 s:" in notice


async def test_second_segmenter_recognizes_nothing_that_was_passed_on(
    pipeline: Callable[..., Pipeline],
) -> None:
    pipes = pipeline()
    expected, utterances = await pipes.run(job_of(speakers=TWO))
    pipes.segmenters.dies_after = 6
    events, again = await pipes.run(job_of(speakers=TWO), utterances[:2])
    assert events == expected
    assert again == utterances
    first, second = pipes.segmenters.asked[-2:]
    assert len(first.known) == 2
    assert {one.index for one in second.known} == set(range(6))
    second_chunks = [c for c in pipes.recognizers.chunks if c.index >= 6]
    first_chunks = [c for c in pipes.recognizers.chunks if c.index < 6]
    assert {chunk.index for chunk in second_chunks} == {6, 7, 8, 9}
    assert sorted(chunk.index for chunk in first_chunks) == [2, 3, 4, 5]


async def test_known_chunks_are_not_counted_and_leave_the_backlog(
    pipeline: Callable[..., Pipeline], recorded: Recorded
) -> None:
    pipes = pipeline()
    _, utterances = await pipes.run(job_of())
    recorded["paraserve_chunks_total"].clear()
    await pipes.run(job_of(), utterances[:7])
    assert recorded["paraserve_chunks_total"] == [(3, {"status": "done"})]
