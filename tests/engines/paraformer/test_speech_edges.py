"""Words beside a pause: where the sound begins and ends, and never where nothing is certain."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.core.records import Pcm, Token
from serve_app.engines.paraformer.speech_edges import (
    snap_to_speech_edges,
    snap_words_to_speech_edges,
    speech_runs,
)
from serve_app.engines.paraformer.timestamps import Span

RUNS_MS = ((300, 1100), (1500, 2400))


def voiced(*runs_ms: tuple[int, int], duration_ms: int = 3000, noise: float = 20.0) -> Pcm:
    """A tone with harmonics where something is said, noise everywhere."""
    time_s = np.arange(duration_ms * 16) / 16_000
    voice = sum(np.sin(2 * np.pi * 150 * order * time_s) / order for order in range(1, 9))
    said = np.zeros(len(time_s))
    for start_ms, end_ms in runs_ms:
        said[start_ms * 16 : end_ms * 16] = 1.0
    hiss = np.random.default_rng(4).normal(0, noise, len(time_s))
    samples: Pcm = (4000 * voice * said + hiss).astype(np.int16)
    return samples


def test_runs_of_speech_are_found_to_ten_ms() -> None:
    found = speech_runs(voiced(*RUNS_MS))
    assert np.array(found) == pytest.approx(np.array(RUNS_MS), abs=10)


def test_stop_closure_inside_a_word_is_not_a_pause() -> None:
    assert len(speech_runs(voiced((300, 700), (820, 1200)))) == 1


def test_click_in_a_pause_is_not_speech() -> None:
    assert len(speech_runs(voiced((300, 900), (1200, 1205), (1600, 2000)))) == 2


@pytest.mark.parametrize("noise", [300.0, 3000.0])
def test_times_stay_where_the_signal_to_noise_ratio_is_low(noise: float) -> None:
    spans = [(100, 300), (900, 1600), (1700, 2900)]
    assert snap_to_speech_edges(voiced(*RUNS_MS, noise=20 * noise), spans) == spans


def test_syllables_before_a_pause_are_shortened_where_the_signal_has_no_clear_pauses() -> None:
    spans = [(0, 200), (200, 400), (400, 590), (590, 1310), (1500, 1700)]
    found = snap_to_speech_edges(voiced(*RUNS_MS, noise=6000.0), spans, ends_are_loose=True)
    assert found == [*spans[:3], (590, 850), (1500, 1700)]
    assert snap_to_speech_edges(np.zeros(0, np.int16), spans[3:], ends_are_loose=True) == spans[3:]


@pytest.mark.parametrize("pcm", [np.zeros(0, np.int16), np.zeros(48_000, np.int16)])
def test_times_stay_in_silence(pcm: Pcm) -> None:
    assert snap_to_speech_edges(pcm, [(10, 20)]) == [(10, 20)]


@pytest.mark.parametrize("shift_ms", [-150, -90, 0, 90, 150])
def test_early_and_late_words_snap_to_the_edges(shift_ms: int) -> None:
    spans = [(300, 500), (500, 800), (800, 1100), (1500, 1900), (1900, 2400)]
    found = snap_to_speech_edges(voiced(*RUNS_MS), [(a + shift_ms, b + shift_ms) for a, b in spans])
    edges = [found[0][0], found[2][1], found[3][0], found[4][1]]
    assert edges == pytest.approx([300, 1100, 1500, 2400], abs=10)
    # Inside of a run words stay where the recognizer heard them.
    assert found[1] == (500 + shift_ms, 800 + shift_ms)


def test_word_that_lasts_into_a_pause_ends_with_its_sound() -> None:
    found = snap_to_speech_edges(voiced(*RUNS_MS), [(310, 700), (700, 1420), (1420, 1900)])
    edges = [edge for span in found[1:] for edge in span]
    assert edges == pytest.approx([700, 1100, 1500, 1900], abs=10)


def test_words_in_a_pause_move_into_the_speech_beside_it() -> None:
    found = snap_to_speech_edges(voiced(*RUNS_MS), [(1250, 1350), (1350, 1450), (1600, 2300)])
    assert all(1490 <= start < end for start, end in found)
    assert all(end - start >= 40 for start, end in found)


def test_word_far_from_all_sound_stays() -> None:
    pcm = voiced((3000, 3900), duration_ms=4000)
    assert snap_to_speech_edges(pcm, [(500, 700), (3000, 3200)])[0] == (500, 700)


def test_words_do_not_snap_to_a_distant_edge() -> None:
    found = snap_to_speech_edges(voiced((300, 2000)), [(1000, 1200), (1200, 1400)])
    assert found == [(1000, 1200), (1200, 1400)]


def test_words_keep_all_but_their_times() -> None:
    word = Token("好", 200, 900, 0.5, "model")
    (moved,) = snap_words_to_speech_edges(voiced((300, 800)), [word])
    assert (moved.text, moved.confidence, moved.model) == ("好", 0.5, "model")
    assert (moved.start_ms, moved.end_ms) == pytest.approx((300, 800), abs=10)


@given(
    runs=st.lists(st.tuples(st.integers(20, 900), st.integers(0, 600)), max_size=5),
    words=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), max_size=25),
)
def test_times_stay_in_order_and_inside(
    runs: list[tuple[int, int]], words: list[tuple[int, int]]
) -> None:
    said: list[tuple[int, int]] = []
    now_ms = 0
    for length_ms, gap_ms in runs:
        said.append((now_ms + gap_ms, now_ms + gap_ms + length_ms))
        now_ms = said[-1][1]
    spans: list[Span] = []
    at_ms = 0
    for gap_ms, length_ms in words:
        start_ms = min(at_ms + gap_ms, 8000)
        at_ms = min(start_ms + length_ms, 8000)
        spans.append((start_ms, at_ms))
    found = snap_to_speech_edges(voiced(*said, duration_ms=8000), spans)
    assert len(found) == len(spans)
    assert all(0 <= start <= end <= 8000 for start, end in found)
    assert all(before[1] <= after[0] for before, after in pairwise(found))
