"""Times of the demo recording's words through the whole pipeline, against its signal."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from serve_app.core.records import Stage, Token
from serve_app.inference.local import LocalTranscriber
from serve_app.settings import Settings
from serve_app.transcript.transcript import Transcript, collect
from tests.fakes.sentence_edges import (
    DEMO_FLAC,
    assert_close_to_the_signal,
    demo_recording,
    edge_errors_ms,
    spoken_sentences,
)

STAGES: dict[str, frozenset[Stage]] = {
    "with VAD": frozenset({"vad", "asr", "punctuation"}),
    "without VAD": frozenset({"asr"}),
}


async def _transcribed(stages: frozenset[Stage]) -> Transcript:
    async with LocalTranscriber(Settings()) as transcriber:
        audio = np.fromfile(DEMO_FLAC, np.uint8)
        return await collect(transcriber.transcribe(audio, stages))


@pytest.mark.parametrize("stages", STAGES.values(), ids=list(STAGES))
async def test_word_times_of_the_demo_match_its_sound(stages: frozenset[Stage]) -> None:
    words = list((await _transcribed(stages)).words())
    recording = demo_recording()
    sentences = spoken_sentences(recording)
    assert_close_to_the_signal(edge_errors_ms(words, sentences))
    assert abs(_best_shift_ms(words, np.abs(recording.astype(np.float64)))) <= 30
    # Between two sentences nobody speaks, and no word lasts until there.
    for before, after in pairwise(sentences):
        middle_ms = (before.end_ms + after.start_ms) / 2
        assert not any(word.start_ms < middle_ms < word.end_ms for word in words)


def _best_shift_ms(words: list[Token], loudness: np.typing.NDArray[np.float64]) -> int:
    """By how much all words would have to be moved to cover the most of the sound."""
    steps = loudness[: len(loudness) // 160 * 160].reshape(-1, 160).mean(axis=1)
    active = steps > 4 * np.percentile(steps, 5)

    def fit(shift_ms: int) -> float:
        covered = np.zeros(len(active))
        for word in words:
            covered[(word.start_ms + shift_ms) // 10 : (word.end_ms + shift_ms) // 10] = 1.0
        return float(np.corrcoef(covered, active)[0, 1])

    return max(range(-300, 301, 10), key=fit)
