"""When each token was said, from what the CIF predictor saw."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Span: TypeAlias = tuple[int, int]
"""Start and end in ms from the start of the chunk."""

ENCODER_FRAME_MS = 60
# Encoder frame 0 is stacked around the first 25 ms window, so its middle is 12.5 ms.
_FIRST_CENTRE_MS = 12.5
_MAX_HALF_SPAN_MS = 200.0

_FIRE_THRESHOLD = np.float32(1.0 - 1e-4)
_UPSAMPLING = 3
_FINE_FRAME_MS = ENCODER_FRAME_MS / _UPSAMPLING
_FIRE_SHIFT_FRAMES = -1.5
_MAX_TOKEN_FRAMES = 12
_MIN_SILENCE_FRAMES = 5


def spans_from_centres(centres: npt.NDArray[np.float64], duration_ms: int) -> list[Span]:
    """Times for a predictor without a timestamp head (CifPredictorV2).

    A token lies around the centre of its CIF mass; it ends midway to the next
    centre, and at most 200 ms from its own. FunASR 1.4.16 has times for this
    class, too, but passes weights and peaks in the wrong order, so that there is
    nothing to be equal to.

    Args:
        centres: in encoder frames, ascending.
        duration_ms: of the chunk.
    """
    if len(centres) == 0:
        return []
    centres_ms = centres * ENCODER_FRAME_MS + _FIRST_CENTRE_MS
    between = (centres_ms[1:] + centres_ms[:-1]) / 2
    starts = np.maximum(centres_ms - _MAX_HALF_SPAN_MS, np.concatenate([[-np.inf], between]))
    ends = np.minimum(centres_ms + _MAX_HALF_SPAN_MS, np.concatenate([between, [np.inf]]))
    return fit_spans(zip(starts.tolist(), ends.tolist(), strict=True), duration_ms)


def spans_from_peaks(
    alphas: npt.NDArray[np.float32], num_tokens: int, duration_ms: int
) -> list[Span] | None:
    """Times from the timestamp head of CifPredictorV3, which fires as a token starts.

    Args:
        alphas: the head's weights in frames of 20 ms, scaled to a sum of the
            predicted number of tokens; [3 * encoder frames].
        num_tokens: tokens that are shown, at least 1.
        duration_ms: of the chunk.

    Returns:
        One span a token, or None where the head does not fire once a token.

    Source: the rules and constants of `ts_prediction_lfr6_standard` in FunASR
    1.4.16; unlike there, times stay inside the chunk.
    """
    total = alphas.sum(dtype=np.float32)
    if not total > 0.0:  # NaN too: no weight at all, scaled to the number of tokens
        return None
    fires = _fires(alphas)
    if len(fires) != num_tokens + 1:
        fires = _fires(alphas * (np.float32(num_tokens + 1) / total))
    if len(fires) != num_tokens + 1:
        return None
    spans = [
        (start, min(end, start + _MAX_TOKEN_FRAMES)) for start, end in pairwise(fires.tolist())
    ]
    last_start, _ = spans[-1]
    silence = len(alphas) - fires[-1]
    last_end = (len(alphas) + fires[-1]) / 2 if silence > _MIN_SILENCE_FRAMES else len(alphas)
    # A last token that was cut short is followed by silence: its end stays.
    if fires[-1] - fires[-2] <= _MAX_TOKEN_FRAMES:
        spans[-1] = (last_start, float(last_end))
    in_ms = ((start * _FINE_FRAME_MS, end * _FINE_FRAME_MS) for start, end in spans)
    return fit_spans(((int(start), int(end)) for start, end in in_ms), duration_ms)


def _fires(alphas: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Shifted frames at which the float32 running sum passes the threshold."""
    fired: list[int] = []
    total = np.float32(0.0)
    for index, weight in enumerate(alphas):
        total = np.float32(total + weight)
        if total >= _FIRE_THRESHOLD:
            fired.append(index)
            total = np.float32(total - _FIRE_THRESHOLD)
    return np.array(fired, dtype=np.float64) + _FIRE_SHIFT_FRAMES


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
