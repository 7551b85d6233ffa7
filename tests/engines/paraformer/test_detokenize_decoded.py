from __future__ import annotations

import numpy as np
import pytest

from serve_app.core.records import ChunkFailure, Recognition
from serve_app.engines.paraformer.detokenize import (
    Decoded,
    overflow_failure,
    recognition_of,
    shown_ids,
)
from serve_app.engines.paraformer.timestamps import FiringWeights

NAMES = ("<blank>", "<s>", "</s>", "一", "丁", "<unk>")
PCM = np.ones(32_000, np.int16)


def decoded(*ids: int, weights: FiringWeights | None = None) -> Decoded:
    return Decoded(
        np.array(ids, np.int32),
        np.full(len(ids), 0.5, np.float32),
        weights,
    )


def test_blank_and_the_ends_are_never_shown() -> None:
    result = recognition_of(PCM, decoded(0, 3, 1, 4, 2), NAMES)
    assert isinstance(result, Recognition)
    assert [token.text for token in result.tokens] == ["一", "丁"]
    assert shown_ids(decoded(0, 3, 1, 4, 2)) == [3, 4]


def test_times_are_those_of_the_tokens_that_are_shown() -> None:
    alphas = np.zeros(99, np.float32)
    alphas[[10, 30, 50]] = 1.0
    heard = decoded(3, 4, 2, weights=FiringWeights(alphas, 20, at_once=False))
    # FunASR's rule: 20 ms a frame, a fire counts one and a half frames earlier.
    assert heard.spans(2000)[0] == (170, 410)
    assert decoded(3, 4, 2).spans(2000) == [(0, 1000), (1000, 2000)]


def test_words_beside_a_pause_end_and_begin_with_the_sound() -> None:
    time_s = np.arange(32_000) / 16_000
    sound = (time_s > 0.3) & (time_s < 0.8) | (time_s > 1.2) & (time_s < 1.7)
    pcm = (8000 * np.sin(2 * np.pi * 200 * time_s) * sound).astype(np.int16)
    alphas = np.zeros(34, np.float32)
    alphas[[5, 19, 33]] = 1.0  # starts at 210 and 1050 ms
    heard = decoded(3, 4, 2, weights=FiringWeights(alphas, 60, at_once=True))
    result = recognition_of(pcm, heard, NAMES)
    assert isinstance(result, Recognition)
    times = [edge for token in result.tokens for edge in (token.start_ms, token.end_ms)]
    assert times == pytest.approx([300, 800, 1200, 1700], abs=15)


def test_silence_and_failures_have_no_words() -> None:
    assert recognition_of(PCM, None, NAMES) == Recognition(())
    assert recognition_of(PCM, decoded(), NAMES) == Recognition(())
    failure = overflow_failure()
    assert isinstance(failure, ChunkFailure)
    assert recognition_of(PCM, failure, NAMES) is failure
    assert shown_ids(None) == shown_ids(failure) == []
