"""Firing of tokens: integrates the weights of one utterance, in numpy alone.

Source: Dong and Xu, "CIF: Continuous Integrate-and-Fire for End-to-End Speech
Recognition" (2020); rounding follows FunASR 1.4.16 on one utterance alone
(`models/paraformer/cif_predictor.py`, `models/bicif_paraformer/cif_predictor.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CifShape:
    """Sizes and constants of a predictor; see `predictor_conf` in config.yaml."""

    size: int
    left: int
    right: int
    threshold: float = 1.0
    smooth_factor: float = 1.0
    noise_threshold: float = 0.0
    tail_threshold: float = 0.45


@dataclass(frozen=True, slots=True)
class Integration:
    """The share of each frame in each token of one utterance.

    Entry e: frame `frames[e]` contributes `shares[e]` to token `tokens[e]`.
    """

    num_tokens: int
    frames: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]
    shares: FloatArray


def with_tail(alphas: FloatArray, shape: CifShape) -> FloatArray:
    """Appends the tail weight, which lets a nearly complete last token fire."""
    if shape.tail_threshold > 0.0:
        return np.append(alphas, np.float32(shape.tail_threshold))
    return alphas


def fire(
    weights: FloatArray, num_frames: int, num_tokens: int, threshold: float, sequential: bool
) -> Integration:
    """Divides the frames of one utterance among its tokens.

    Args:
        weights: float32, one per frame, and the tail if there is one.
        num_frames: without the tail.
        num_tokens: the rounded sum of the weights.
        threshold: the sum at which a token fires, if `sequential`.
        sequential: True adds frame by frame in float32, as FunASR's CifPredictorV3 does; False
            computes a float64 cumulative sum, as V2 does. Sums near a whole number fire at
            different frames.
    """
    fired, rest = _fire_sequentially(weights, threshold) if sequential else _fire_at_once(weights)
    return _shares(weights, fired, rest, num_frames, num_tokens)


def _fire_at_once(weights: FloatArray) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    """Returns where tokens fire, and the share that a firing frame leaves to the next token."""
    sums = np.cumsum(weights, dtype=np.float64).astype(np.float32)
    whole = np.floor(sums)
    return np.diff(whole, prepend=np.float32(0.0)) > 0, sums - whole


def _fire_sequentially(
    weights: FloatArray, threshold: float
) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    fired = np.zeros(weights.shape, dtype=np.bool_)
    rest = np.zeros(weights.shape, dtype=np.float32)
    total = np.float32(0.0)
    for index, weight in enumerate(weights):
        before = total
        total = np.float32(total + weight)
        if total >= threshold:
            fired[index] = True
            rest[index] = weight - (np.float32(1.0) - before)
            total = np.float32(total - np.float32(1.0))
    return fired, rest


def _shares(
    weights: FloatArray,
    fired: npt.NDArray[np.bool_],
    rest: FloatArray,
    num_frames: int,
    num_tokens: int,
) -> Integration:
    """Assigns each frame to one token; a firing frame is shared with the next token."""
    token: npt.NDArray[np.int64] = np.cumsum(fired) - fired
    last = np.flatnonzero(fired)
    frames = np.concatenate([np.arange(len(weights)), last])
    tokens = np.concatenate([token, token[last] + 1])
    shares = np.concatenate([weights - np.where(fired, rest, np.float32(0.0)), rest[last]])
    # Frames after the last token are dropped, and so is the tail, which has no content.
    kept = (tokens < num_tokens) & (frames < num_frames)
    return Integration(
        num_tokens=num_tokens,
        frames=frames[kept].astype(np.int64),
        tokens=tokens[kept].astype(np.int64),
        shares=shares[kept].astype(np.float32),
    )
