"""Token times from the firing weights of a CIF predictor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Span: TypeAlias = tuple[int, int]
"""Start and end in ms from the start of the chunk."""

ENCODER_FRAME_MS = 60
FINE_FRAMES = 3
"""Frames of the timestamp head per encoder frame."""

_FIRE_THRESHOLD = np.float32(1.0 - 1e-4)
_FIRE_SHIFT_FRAMES = -1.5
# Scaling smaller sums to the number of tokens would overflow.
_MIN_TOTAL = 1e-30
_MAX_TOKEN_FRAMES = 12
_MIN_SILENCE_FRAMES = 5


@dataclass(frozen=True, slots=True)
class FiringWeights:
    """The weights of a predictor; a token starts where their sum passes a whole number.

    Models of this family learn the end of a text as one more token, so the predictor fires at the
    start of each word and after the last one.

    Attributes:
        alphas: float32 [frames].
        frame_ms: 60 for the predictor that counts the tokens (FunASR's CifPredictorV2; its
            tail, where it has one, is the last frame); 20 for the timestamp head of
            CifPredictorV3, whose weights are scaled to a sum of the number of tokens.
        at_once: the first fires are found in float64, as CifPredictorV2 finds them; or
            frame by frame in float32, as CifPredictorV3 does.
    """

    alphas: npt.NDArray[np.float32]
    frame_ms: int
    at_once: bool


def token_spans(weights: FiringWeights | None, num_tokens: int, duration_ms: int) -> list[Span]:
    """Returns the time span of each token.

    Args:
        weights: None for an even distribution.
        num_tokens: number of shown tokens.
        duration_ms: of the chunk.

    Source: the rules and constants of `ts_prediction_lfr6_standard` in FunASR 1.4.16,
    `utils/timestamp_tools.py`; unlike there, times stay inside the chunk. FunASR 1.4.16
    passes this function weights and fires of CifPredictorV2 in the wrong order, which
    https://github.com/modelscope/FunASR/pull/3716 fixes; here the order is correct.
    """
    if num_tokens == 0:
        return []
    alphas = np.zeros(0, np.float32) if weights is None else weights.alphas
    total = alphas.sum(dtype=np.float32)
    # Also true for NaN, from scaling weights that are all 0.
    if weights is None or not total > _MIN_TOTAL:
        return _even_spans(num_tokens, duration_ms)
    fires = _fires_at_once(alphas) if weights.at_once else _fires(alphas)
    if len(fires) != num_tokens + 1:
        scaled = alphas * (np.float32(num_tokens + 1) / total)
        fires = _fires(scaled)
        if len(fires) != num_tokens + 1:
            fires = _crossings(scaled, num_tokens + 1)
    spans = _spans_between(fires + _FIRE_SHIFT_FRAMES, len(alphas))
    in_ms = ((start * weights.frame_ms, end * weights.frame_ms) for start, end in spans)
    return fit_spans(((int(start), int(end)) for start, end in in_ms), duration_ms)


def _spans_between(fires: npt.NDArray[np.float64], num_frames: int) -> list[tuple[float, float]]:
    """Returns spans in frames: a token lasts until the next fire, at most twelve frames."""
    spans = [
        (start, min(end, start + _MAX_TOKEN_FRAMES)) for start, end in pairwise(fires.tolist())
    ]
    last_start, _ = spans[-1]
    silence = num_frames - fires[-1]
    last_end = (num_frames + fires[-1]) / 2 if silence > _MIN_SILENCE_FRAMES else num_frames
    # A last token at the maximum length is followed by silence: its end stays.
    if fires[-1] - fires[-2] <= _MAX_TOKEN_FRAMES:
        spans[-1] = (last_start, float(last_end))
    return spans


def _fires(alphas: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Returns the frames at which the float32 running sum passes the threshold."""
    fired: list[int] = []
    total = np.float32(0.0)
    for index, weight in enumerate(alphas):
        total = np.float32(total + weight)
        if total >= _FIRE_THRESHOLD:
            fired.append(index)
            total = np.float32(total - _FIRE_THRESHOLD)
    return np.array(fired, dtype=np.float64)


def _fires_at_once(alphas: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Returns the frames at which the running sum passes, or nearly reaches, a whole number."""
    sums = np.cumsum(alphas, dtype=np.float64).astype(np.float32)
    whole = np.floor(sums)
    fired = np.diff(whole, prepend=np.float32(0.0)) > 0
    return np.flatnonzero(fired | (sums - whole >= _FIRE_THRESHOLD)).astype(np.float64)


def _crossings(alphas: npt.NDArray[np.float32], num_fires: int) -> npt.NDArray[np.float64]:
    """Returns exactly `num_fires` fires; a frame may have several."""
    sums = np.cumsum(alphas, dtype=np.float64)
    goals = np.arange(1, num_fires + 1) * float(_FIRE_THRESHOLD)
    return np.minimum(np.searchsorted(sums, goals), len(alphas) - 1).astype(np.float64)


def _even_spans(num_tokens: int, duration_ms: int) -> list[Span]:
    edges = [round(duration_ms * number / num_tokens) for number in range(num_tokens + 1)]
    return list(pairwise(edges))


def fit_spans(spans: Iterable[tuple[float, float]], duration_ms: int) -> list[Span]:
    """Rounds to ms and moves spans into [0, duration_ms], in order, without overlap."""
    fitted: list[Span] = []
    previous_end = 0
    for start, end in spans:
        start_ms = min(max(round(start), previous_end), duration_ms)
        end_ms = min(max(round(end), start_ms), duration_ms)
        fitted.append((start_ms, end_ms))
        previous_end = end_ms
    return fitted
