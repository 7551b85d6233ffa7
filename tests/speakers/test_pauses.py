"""Pauses within a piece of speech."""

from __future__ import annotations

import numpy as np
import pytest

from serve_app.core.pcm import Pcm
from serve_app.core.records import Chunk, RequestContext
from serve_app.inference.voices import windows_of_chunks
from serve_app.speakers.pauses import pauses_in
from tests.fakes.voices import FakeSpeakerEmbedder

RATE = 16


def sound(*parts: tuple[int, float], seed: int = 0) -> Pcm:
    """Returns noise in parts of a length in ms and a level, as voices and rooms have."""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.normal(scale=level, size=length_ms * RATE) for length_ms, level in parts]
    ).astype(np.int16)


VOICE, ROOM = 3000.0, 10.0


def found(pcm: Pcm) -> list[list[int]]:
    ranges: list[list[int]] = pauses_in(pcm).tolist()
    return ranges


def test_pause_keeps_an_edge_of_50_ms_on_both_sides() -> None:
    ((start_ms, end_ms),) = found(sound((1000, VOICE), (500, ROOM), (1000, VOICE)))
    assert start_ms == pytest.approx(1050, abs=20)
    assert end_ms == pytest.approx(1450, abs=20)


def test_silence_of_less_than_300_ms_between_words_is_no_pause() -> None:
    assert found(sound((1000, VOICE), (270, ROOM), (1000, VOICE))) == []
    assert len(found(sound((1000, VOICE), (340, ROOM), (1000, VOICE)))) == 1


def test_silence_at_the_ends_is_a_pause() -> None:
    first, last = found(sound((400, ROOM), (2000, VOICE), (300, ROOM)))
    assert first[0] == 0
    assert first[1] == pytest.approx(350, abs=20)
    assert last[0] == pytest.approx(2450, abs=20)
    assert last[1] == 2700


def test_speaker_far_from_the_microphone_is_no_pause() -> None:
    # 26 dB below the other, and still 24 dB above the room.
    far = VOICE / 20
    pcm = sound((2000, VOICE), (400, ROOM), (2000, far), (400, ROOM), (2000, VOICE))
    first, second = found(pcm)
    assert first[1] <= 2420
    assert second[0] >= 4380


def test_noise_almost_as_loud_as_the_voice_hides_pauses() -> None:
    assert found(sound((1000, VOICE), (500, VOICE / 4), (1000, VOICE))) == []


@pytest.mark.parametrize("level", [0.0, 1.0, VOICE])
def test_piece_of_one_level_has_no_pause(level: float) -> None:
    assert found(sound((3000, level))) == []


@pytest.mark.parametrize("num_samples", [0, 1, 159, 160, 3199])
def test_short_piece_has_no_pause(num_samples: int) -> None:
    assert found(np.zeros(num_samples, np.int16)) == []


def test_louder_recording_has_the_same_pauses() -> None:
    parts = ((1000, 300.0), (500, 1.0), (1000, 300.0))
    quiet = sound(*parts).astype(np.float64)
    assert found((quiet * 20).astype(np.int16)) == found(quiet.astype(np.int16))


def test_pauses_of_a_chunk_are_in_the_time_of_the_recording() -> None:
    pcm = sound((1000, VOICE), (500, ROOM), (1000, VOICE))
    chunk = Chunk(RequestContext("1"), 0, 60_000, pcm)
    (windows,) = windows_of_chunks([chunk], FakeSpeakerEmbedder().embed([pcm]))
    assert windows.pauses_ms.tolist() == [
        [60_000 + start_ms, 60_000 + end_ms] for start_ms, end_ms in found(pcm)
    ]
