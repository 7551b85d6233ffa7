from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serve_app.engines.paraformer.timestamps import FiringWeights, Span, token_spans
from tests.fakes.funasr_reference import REFERENCE_MARKS

WEIGHTS = hnp.arrays(np.float32, st.integers(3, 300), elements=st.floats(0, 1.0, width=32))
STARTS_S = (0.42, 0.66, 0.9, 1.14, 1.56, 1.8)
END_S = 2.04


def fires(frames: Sequence[int], num_frames: int) -> np.typing.NDArray[np.float32]:
    alphas = np.zeros(num_frames, np.float32)
    alphas[list(frames)] = 1.0
    return alphas


def _assert_in_order(spans: list[Span], duration_ms: int) -> None:
    edges = [0, *(edge for span in spans for edge in span), duration_ms]
    assert edges == sorted(edges)


def _known(frame_ms: int, shares: Sequence[float]) -> FiringWeights:
    """Weights that fire 1.5 frames after the starts above, built up over some frames."""
    num_frames = 3000 // frame_ms
    alphas = np.zeros(num_frames, np.float32)
    for time_s in (*STARTS_S, END_S):
        fired = round(time_s * 1000 / frame_ms + 1.5)
        alphas[fired - len(shares) + 1 : fired + 1] += np.array(shares, np.float32)
    return FiringWeights(alphas, frame_ms, at_once=frame_ms == 60)


@pytest.mark.parametrize("shares", [[1.0], [0.5, 0.5], [0.125, 0.125, 0.75]])
@pytest.mark.parametrize("frame_ms", [20, 60])
def test_token_starts_where_the_predictor_fires(frame_ms: int, shares: list[float]) -> None:
    spans = token_spans(_known(frame_ms, shares), len(STARTS_S), 3000)
    # A fire can be placed no better than to a frame.
    assert [start / 1000 for start, _ in spans] == pytest.approx(STARTS_S, abs=0.031)
    assert [end for _, end in spans[:3]] == [start for start, _ in spans[1:4]]


@pytest.mark.parametrize("frame_ms", [20, 60])
def test_weights_that_add_up_to_a_token_less_are_scaled(frame_ms: int) -> None:
    known = _known(frame_ms, [1.0])
    scaled = FiringWeights(known.alphas * np.float32(6 / 7), frame_ms, known.at_once)
    assert token_spans(scaled, 6, 3000) == token_spans(known, 6, 3000)


def test_token_before_a_pause_lasts_twelve_frames_at_most() -> None:
    weights = FiringWeights(fires([10, 60, 70], 100), 20, at_once=False)
    assert token_spans(weights, 2, 2000)[0] == (170, 410)


def test_times_stay_inside_the_chunk() -> None:
    weights = FiringWeights(fires([0, 4, 20], 21), 60, at_once=True)
    assert token_spans(weights, 2, 1190) == [(0, 150), (150, 870)]


def test_no_tokens_have_no_times() -> None:
    assert token_spans(FiringWeights(fires([1], 9), 60, at_once=True), 0, 540) == []


@pytest.mark.parametrize("weight", [0.0, np.nan])
def test_tokens_without_weights_share_the_chunk(weight: float) -> None:
    weights = FiringWeights(np.full(30, weight, np.float32), 20, at_once=False)
    assert token_spans(weights, 2, 600) == [(0, 300), (300, 600)]
    assert token_spans(None, 2, 600) == [(0, 300), (300, 600)]


@pytest.mark.parametrize("at_once", [False, True])
def test_weights_too_small_to_scale_share_the_chunk(at_once: bool) -> None:
    weights = FiringWeights(np.full(3, 1e-45, np.float32), 20, at_once)
    assert token_spans(weights, 2, 1000) == [(0, 500), (500, 1000)]


def test_more_tokens_than_frames_still_have_times() -> None:
    spans = token_spans(FiringWeights(np.ones(3, np.float32), 60, at_once=True), 9, 190)
    assert len(spans) == 9
    _assert_in_order(spans, 190)


@given(WEIGHTS, st.integers(1, 40), st.integers(1, 6000), st.booleans(), st.sampled_from([20, 60]))
def test_times_are_ordered_and_inside(
    alphas: np.typing.NDArray[np.float32],
    num_tokens: int,
    duration_ms: int,
    at_once: bool,
    frame_ms: int,
) -> None:
    spans = token_spans(FiringWeights(alphas, frame_ms, at_once), num_tokens, duration_ms)
    assert len(spans) == num_tokens
    _assert_in_order(spans, duration_ms)


class TestAgainstFunasr:
    """`ts_prediction_lfr6_standard` with its arguments in the order that it names them."""

    pytestmark = REFERENCE_MARKS

    @pytest.mark.parametrize("seed", range(40))
    @pytest.mark.parametrize("frame_ms", [20, 60])
    def test_times_are_those_of_funasr(self, frame_ms: int, seed: int) -> None:
        from funasr.models.bicif_paraformer.cif_predictor import cif_wo_hidden
        from funasr.models.paraformer.cif_predictor import cif_wo_hidden_v1
        from funasr.utils.timestamp_tools import ts_prediction_lfr6_standard

        generator = np.random.default_rng(seed)
        alphas = generator.beta(0.3, 1.2, 60 * 60 // frame_ms).astype(np.float32)
        num_tokens = int(alphas.sum()) - int(generator.integers(0, 4))
        rows = torch.from_numpy(alphas.copy())[None]
        peaks = cif_wo_hidden_v1(rows, 1.0) if frame_ms == 60 else cif_wo_hidden(rows, 1 - 1e-4)
        _, expected = ts_prediction_lfr6_standard(
            rows[0], peaks[0], ["字"] * num_tokens, upsample_rate=60 // frame_ms
        )
        found = token_spans(FiringWeights(alphas, frame_ms, frame_ms == 60), num_tokens, 10_000)
        assert len(found) == len(expected)
        for (start_ms, end_ms), (their_start_ms, their_end_ms) in zip(found, expected, strict=True):
            # FunASR's first time may be negative, and it truncates to ms.
            assert start_ms == pytest.approx(max(their_start_ms, 0), abs=1)
            assert end_ms == pytest.approx(max(their_end_ms, 0), abs=1)
