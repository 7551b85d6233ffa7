"""Cutting: nothing lost, nothing twice, nothing too long, memory bounded."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serve_app.core.records import SAMPLES_PER_MS, Pcm, SpeechSegment
from serve_app.transcript.chunking import (
    AudioTail,
    ChunkAudio,
    FixedChunker,
    SegmentChunker,
    quietest_ms,
)


def ramp(num_ms: int) -> Pcm:
    """Audio in which every sample tells its own place."""
    return (np.arange(num_ms * SAMPLES_PER_MS) % 30_000).astype(np.int16)


def noise(num_ms: int, seed: int = 0) -> Pcm:
    generator = np.random.default_rng(seed)
    return (generator.standard_normal(num_ms * SAMPLES_PER_MS) * 3000).astype(np.int16)


def test_quietest_place_is_the_pause() -> None:
    pcm = noise(2000)
    pcm[1200 * SAMPLES_PER_MS : 1400 * SAMPLES_PER_MS] = 0
    assert 1200 <= quietest_ms(pcm, 500, 2000) <= 1400


def test_quietest_place_stays_inside_its_range() -> None:
    pcm = np.zeros(2000 * SAMPLES_PER_MS, np.int16)
    assert 500 <= quietest_ms(pcm, 500, 1000) <= 1000


def test_tail_returns_the_appended_audio() -> None:
    audio = ramp(1000)
    tail = AudioTail()
    for start in range(0, 1000, 100):
        tail.append(audio[start * SAMPLES_PER_MS : (start + 100) * SAMPLES_PER_MS])
    tail.drop_before(350)
    np.testing.assert_array_equal(
        tail.slice(350, 777), audio[350 * SAMPLES_PER_MS : 777 * SAMPLES_PER_MS]
    )
    assert tail.num_kept_samples == 700 * SAMPLES_PER_MS
    assert tail.end_ms == 1000


def test_closed_segment_is_cut_out_exactly() -> None:
    audio = ramp(5000)
    chunker = SegmentChunker(max_segment_s=30)
    chunker.append(audio)
    (cut,) = chunker.cut([SpeechSegment(1000, 3500)], None, 3500)
    assert (cut.start_ms, cut.end_ms) == (1000, 3500)
    np.testing.assert_array_equal(cut.pcm, audio[1000 * SAMPLES_PER_MS : 3500 * SAMPLES_PER_MS])


def test_segment_over_the_limit_is_divided_without_gap() -> None:
    chunker = SegmentChunker(max_segment_s=2)
    chunker.append(noise(7000))
    cuts = chunker.cut([SpeechSegment(500, 6800)], None, 6800)
    assert cuts[0].start_ms == 500
    assert cuts[-1].end_ms == 6800
    assert all(cut.end_ms - cut.start_ms <= 2000 for cut in cuts)
    assert all(a.end_ms == b.start_ms for a, b in pairwise(cuts))


def test_open_segment_is_handed_out_before_it_ends_and_memory_stays_bounded() -> None:
    chunker = SegmentChunker(max_segment_s=2)
    cuts: list[ChunkAudio] = []
    for step in range(60):
        chunker.append(noise(1000, seed=step))
        cuts += chunker.cut([], 200, 200)
        assert chunker.num_kept_samples <= 5000 * SAMPLES_PER_MS
    cuts += chunker.cut([SpeechSegment(200, 60_000)], None, 60_000)
    assert len(cuts) >= 30
    assert (cuts[0].start_ms, cuts[-1].end_ms) == (200, 60_000)
    assert all(a.end_ms == b.start_ms for a, b in pairwise(cuts))


@given(
    window_ms=st.lists(st.integers(1, 4000), min_size=1, max_size=12),
    max_segment_s=st.sampled_from([0.5, 1.0, 2.5]),
)
def test_fixed_cutter_covers_everything_once(window_ms: list[int], max_segment_s: float) -> None:
    audio = ramp(sum(window_ms))
    chunker = FixedChunker(max_segment_s)
    cuts: list[ChunkAudio] = []
    start = 0
    for length in window_ms:
        chunker.append(audio[start * SAMPLES_PER_MS : (start + length) * SAMPLES_PER_MS])
        start += length
        cuts += chunker.cut()
    cuts += chunker.finish()
    np.testing.assert_array_equal(np.concatenate([cut.pcm for cut in cuts]), audio)
    assert all(0 < len(cut.pcm) <= max_segment_s * 1000 * SAMPLES_PER_MS for cut in cuts)


@given(st.data())
def test_cuts_do_not_depend_on_the_windows(data: st.DataObject) -> None:
    audio = noise(6000, seed=3)
    segments = [SpeechSegment(300, 1400), SpeechSegment(1900, 5200)]

    def run(window_ms: int) -> list[tuple[int, int]]:
        chunker = SegmentChunker(max_segment_s=2)
        cuts: list[ChunkAudio] = []
        for start in range(0, 6000, window_ms):
            end = min(start + window_ms, 6000)
            chunker.append(audio[start * SAMPLES_PER_MS : end * SAMPLES_PER_MS])
            closed = [segment for segment in segments if start < segment.end_ms <= end]
            open_since = next((s.start_ms for s in segments if s.start_ms <= end < s.end_ms), None)
            keep = open_since if open_since is not None else end
            cuts += chunker.cut(closed, open_since, keep)
        return [(cut.start_ms, cut.end_ms) for cut in cuts]

    assert run(data.draw(st.integers(200, 6000))) == run(6000)
