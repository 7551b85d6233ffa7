"""A call with a speaker on each channel: each side comes out as if it were alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise

import numpy as np
import pytest

from serve_app.core.records import FileBytes, Stage
from serve_app.inference.local import LocalTranscriber
from serve_app.settings import Settings
from serve_app.transcript.transcript import Sentence, Transcript, collect
from tests.fakes.calls import demo_call, file_of

ALL: frozenset[Stage] = frozenset(("vad", "asr", "punctuation"))


@pytest.fixture(scope="module")
def settings() -> Settings:
    return Settings()


@pytest.fixture
async def transcriber(settings: Settings) -> AsyncIterator[LocalTranscriber]:
    async with LocalTranscriber(settings) as transcriber:
        yield transcriber


async def transcribe(
    transcriber: LocalTranscriber, audio: FileBytes, stages: frozenset[Stage], *, separate: bool
) -> Transcript:
    return await collect(transcriber.transcribe(audio, stages, separate_channels=separate))


def side_of(transcript: Transcript, channel: int) -> list[Sentence]:
    return [one for one in transcript.sentences if one.channel == channel]


@pytest.mark.parametrize("stages", [ALL, ALL - {"punctuation"}, ALL - {"vad"}], ids=sorted)
async def test_each_side_of_a_call_equals_its_own_transcript(
    transcriber: LocalTranscriber, stages: frozenset[Stage]
) -> None:
    call = demo_call()
    both = await transcribe(transcriber, file_of(call), stages, separate=True)

    assert both.num_channels == 2
    for channel in (0, 1):
        alone = await transcribe(transcriber, file_of(call[:, channel]), stages, separate=False)
        side = side_of(both, channel)
        assert [one.tokens for one in side] == [one.tokens for one in alone.sentences]
        assert len(side) >= 3
        assert both.duration_ms == alone.duration_ms
    starts = [(one.start_ms, one.channel or 0) for one in both.sentences]
    assert starts == sorted(starts)
    overlaps = [a.end_ms > b.start_ms for a, b in pairwise(both.sentences)]
    assert any(overlaps), "the sides do not talk over one another"
    channels = [one.channel for one in both.sentences]
    assert both.text.count("\n") == sum(a != b for a, b in pairwise(channels))


async def test_the_mix_of_a_call_is_one_text_without_channels(
    transcriber: LocalTranscriber,
) -> None:
    mixed = await transcribe(transcriber, file_of(demo_call()), ALL, separate=False)
    assert mixed.sentences
    assert {one.channel for one in mixed.sentences} == {None}
    assert "\n" not in mixed.text


async def test_a_mono_recording_has_one_separate_channel(transcriber: LocalTranscriber) -> None:
    audio = file_of(np.ascontiguousarray(demo_call()[:, 0]))
    separate = await transcribe(transcriber, audio, ALL, separate=True)
    mixed = await transcribe(transcriber, audio, ALL, separate=False)
    assert separate.text == mixed.text
    assert {one.channel for one in separate.sentences} == {0}
    assert separate.num_channels == 1


async def test_a_silent_channel_adds_nothing(transcriber: LocalTranscriber) -> None:
    call = demo_call(4)
    call[:, 0] = 0
    separate = await transcribe(transcriber, file_of(call, "WAV"), ALL, separate=True)
    alone = await transcribe(transcriber, file_of(call[:, 1]), ALL, separate=False)
    assert separate.text == alone.text
    assert {one.channel for one in separate.sentences} == {1}
    assert separate.num_channels == 2
