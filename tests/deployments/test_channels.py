"""Separate channels between the deployments, with scripted handles and without Ray."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from ray.exceptions import ActorDiedError

from serve_app.api.service import TranscriptionJob
from serve_app.core.records import (
    Chunk,
    ChunkFailure,
    Recognition,
    RecordingEnd,
    RequestContext,
    SegmentationJob,
    Token,
    Utterance,
)
from serve_app.transcript.transcript import FailedRange, Sentence
from tests.deployments.test_ingress import ALL_STAGES, AUDIO, CONTEXT, WORDS, Service
from tests.deployments.test_ingress import no_waiting as no_waiting
from tests.deployments.test_segmenter import Open
from tests.deployments.test_segmenter import replica_of as replica_of
from tests.fakes.calls import file_of

HEARD = Recognition((Token("一", 0, 100, 0.9),))
FIRST = replace(WORDS, channel=1, settled_ms=500)
SECOND = replace(WORDS, index=1, channel=0, start_ms=500, settled_ms=2000)
BROKEN = Utterance(2, 2000, 3000, "failed", error="poison: it kills", channel=1, settled_ms=3000)
END = RecordingEnd(3000, num_channels=2)


def job(separate_channels: bool) -> TranscriptionJob:
    stages = ALL_STAGES - {"punctuation"}
    return TranscriptionJob(CONTEXT, AUDIO, stages, separate_channels=separate_channels)


async def test_the_segmenter_is_told_and_sentences_name_their_channel() -> None:
    service = Service([[FIRST, SECOND, BROKEN, END]])
    events = [event async for event in service.tested.transcribe(job(separate_channels=True))]

    (asked,) = service.segmenter.asked
    assert isinstance(asked, SegmentationJob)
    assert asked.separate_channels
    first, second, broken, end = events
    assert isinstance(first, Sentence)
    assert isinstance(second, Sentence)
    assert (first.channel, second.channel) == (0, 1) or (first.channel, second.channel) == (1, 0)
    assert broken == FailedRange(2000, 3000, "poison: it kills", channel=1)
    assert isinstance(end, RecordingEnd)
    assert end.num_channels == 2


async def test_channels_are_mixed_by_default() -> None:
    service = Service([[WORDS, RecordingEnd(3000)]])
    events = [event async for event in service.tested.transcribe(job(separate_channels=False))]
    (asked,) = service.segmenter.asked
    assert isinstance(asked, SegmentationJob)
    assert not asked.separate_channels
    assert isinstance(events[0], Sentence)
    assert events[0].channel is None


async def test_a_lost_segmenter_repeats_no_sentence_of_any_channel() -> None:
    service = Service([[FIRST, ActorDiedError()], [FIRST, SECOND, END]])
    events = [event async for event in service.tested.transcribe(job(separate_channels=True))]
    channels = [event.channel for event in events if isinstance(event, Sentence)]
    assert sorted(channels, key=str) == [0, 1]


def speech(*ranges_s: tuple[float, float]) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    pcm = np.zeros(5 * 16_000, np.int16)
    for start_s, end_s in ranges_s:
        pcm[int(start_s * 16_000) : int(end_s * 16_000)] = 500
    return pcm


async def test_a_replica_recognizes_each_channel_and_fails_only_the_broken_one(
    replica_of: Open,
) -> None:
    audio = file_of(np.stack([speech((1, 2)), speech((1.5, 3))], axis=1))
    replica, handle = replica_of([HEARD, ChunkFailure("engine_error", "x")])
    request = SegmentationJob(RequestContext("request"), audio, True, separate_channels=True)

    events = [event async for event in replica.recognize(request) if event is not None]

    (chunks,) = handle.asked
    assert [(type(one), one.channel) for one in chunks] == [(Chunk, 0), (Chunk, 1)]
    *utterances, end = events
    found = [(one.channel, one.status) for one in utterances if isinstance(one, Utterance)]
    assert found == [(0, "done"), (1, "failed")]
    assert isinstance(end, RecordingEnd)
    assert [one.channel for one in end.utterances] == [0, 1]
    assert (end.num_channels, end.duration_ms) == (2, 5000)
