"""Sessions of the built-in demo packs, against the offline transcript of the same audio."""

from __future__ import annotations

import asyncio
import difflib
import time

import numpy as np
import pytest
import soxr

from serve_app.core.records import Pcm
from serve_app.core.words import join_words
from serve_app.inference.local import LocalTranscriber
from serve_app.live.records import AudioFormat, LiveEvent, PartialText, SessionOptions
from serve_app.live.session import SessionModels
from serve_app.settings import Settings
from serve_app.transcript.itn import TextRules
from serve_app.transcript.transcript import Transcript, collect
from tests.fakes.sentence_edges import DEMO_FLAC, demo_recording
from tests.live.models import check_order, demo_models, finals_of, new_session, rest_of

AT_16_KHZ = AudioFormat("pcm16", 16_000)


async def _offline() -> Transcript:
    async with LocalTranscriber(Settings()) as transcriber:
        return await collect(
            transcriber.transcribe(
                np.fromfile(DEMO_FLAC, np.uint8), frozenset({"vad", "asr", "punctuation"})
            )
        )


async def _live(
    models: SessionModels, pcm: Pcm, audio: AudioFormat, options: SessionOptions
) -> list[LiveEvent]:
    """Pushes 20 ms at a time, about ten times as fast as they are spoken."""
    session = new_session(models, options, audio, clock=time.monotonic)
    reading = asyncio.create_task(rest_of(session))
    step_samples = audio.rate_hz // 50
    for start in range(0, len(pcm), step_samples):
        await session.wait_for_room()
        session.push(pcm[start : start + step_samples].tobytes())
        await asyncio.sleep(0.002)
    session.finish()
    events = await reading
    await session.close()
    check_order(events)
    return events


def _share_in_common(one: str, other: str) -> float:
    blocks = difflib.SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) / max(len(one), len(other))


@pytest.mark.parametrize(
    "audio", [AT_16_KHZ, AudioFormat("pcm16", 24_000)], ids=lambda audio: str(audio.rate_hz)
)
async def test_final_texts_are_those_of_the_offline_transcript(audio: AudioFormat) -> None:
    pcm = demo_recording()
    if audio.rate_hz != 16_000:
        pcm = np.asarray(soxr.resample(pcm, 16_000, audio.rate_hz), np.int16)
    async with demo_models() as models:
        events = await _live(models, pcm, audio, SessionOptions())
    offline = await _offline()
    text = join_words(final.text for final in finals_of(events))
    # The marks differ at the end of a segment, after which a live session does not look ahead.
    assert _share_in_common(text, offline.text) >= 0.99
    assert len([event for event in events if isinstance(event, PartialText)]) > 30
    words = [
        marked.token
        for final in finals_of(events)
        for sentence in final.sentences
        for marked in sentence.tokens
    ]
    offline_words = list(offline.words())
    assert [word.text for word in words] == [word.text for word in offline_words]
    for live, expected in zip(words, offline_words, strict=True):
        assert abs(live.start_ms - expected.start_ms) <= 100


async def test_committed_pieces_lose_no_word() -> None:
    """Without detection, and cut in the pauses: the same words."""
    pcm = demo_recording()
    offline = await _offline()
    async with demo_models() as models:
        session = new_session(models, SessionOptions(detection=None), clock=time.monotonic)
        reading = asyncio.create_task(rest_of(session))
        ends_ms = [span.end_ms + 100 for span in offline.utterances]
        start = 0
        for end_ms in ends_ms:
            await session.wait_for_room()
            session.push(pcm[start : end_ms * 16].tobytes())
            session.commit()
            start = end_ms * 16
        session.finish()
        events = await reading
        await session.close()
    check_order(events)
    text = "".join(final.text for final in finals_of(events))
    assert _share_in_common(text, offline.text) >= 0.98


async def test_numbers_are_written_in_digits_in_final_texts() -> None:
    rules = SessionOptions(text_rules=TextRules(itn=True))
    async with demo_models() as models:
        events = await _live(models, demo_recording()[: 17 * 16_000], AT_16_KHZ, rules)
    assert "22%，预计2月21日上线" in "".join(final.text for final in finals_of(events))
