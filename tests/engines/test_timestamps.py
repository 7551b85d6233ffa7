from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serve_app.engines.timestamps import Span, spans_from_centres, spans_from_peaks


def _assert_in_order(spans: list[Span], duration_ms: int) -> None:
    edges = [0, *(edge for span in spans for edge in span), duration_ms]
    assert edges == sorted(edges)


def test_token_ends_midway_to_the_next() -> None:
    assert spans_from_centres(np.array([5.0, 7.0]), 1000) == [(112, 372), (372, 632)]


def test_token_next_to_silence_lasts_at_most_400_ms() -> None:
    assert spans_from_centres(np.array([10.0, 40.0]), 5000) == [(412, 812), (2212, 2612)]


def test_times_stay_inside_the_chunk() -> None:
    assert spans_from_centres(np.array([0.0, 20.0]), 1250) == [(0, 212), (1012, 1250)]


def test_no_tokens_have_no_times() -> None:
    assert spans_from_centres(np.array([]), 1000) == []


@given(
    hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 500)),
    st.integers(1, 30_000),
)
def test_times_from_centres_are_ordered_and_inside(
    centres: np.typing.NDArray[np.float64], duration_ms: int
) -> None:
    spans = spans_from_centres(np.sort(centres), duration_ms)
    assert len(spans) == len(centres)
    _assert_in_order(spans, duration_ms)


@given(
    hnp.arrays(np.float32, st.integers(3, 300), elements=st.floats(0.0625, 1.0, width=32)),
    st.integers(1, 20),
    st.integers(1, 6000),
)
def test_times_from_peaks_are_ordered_and_inside(
    alphas: np.typing.NDArray[np.float32], num_tokens: int, duration_ms: int
) -> None:
    spans = spans_from_peaks(alphas, num_tokens, duration_ms)
    if spans is not None:
        assert len(spans) == num_tokens
        _assert_in_order(spans, duration_ms)


def test_head_that_never_fires_gives_no_times() -> None:
    assert spans_from_peaks(np.zeros(30, dtype=np.float32), 2, 600) is None
