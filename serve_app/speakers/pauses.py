"""Finds the pauses within a piece of speech: where nobody speaks, although the VAD goes on.

A VAD ends a piece of speech only after most of a second of silence, so that words are not cut.
Speakers mostly change in shorter pauses than that, so turns end and begin there.

Speech is what the standard for the level of telephone speech counts as active: what is at most
15.9 dB below the mean level of the active time, and 200 ms after it. A pause is quieter than
that and near the noise floor as well, so that a speaker far from the microphone, beside a loud
one, is none.

Source: ITU-T P.56 (2011), method B: time constant 30 ms, hangover 200 ms, margin 15.9 dB.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from serve_app.core.pcm import SAMPLES_PER_MS, Pcm
from serve_app.core.speakers import Ranges, no_ranges

_FRAME_MS = 10
_SMOOTHING_FRAMES = 3
_HANGOVER_FRAMES = 20
_MARGIN_DB = 15.9
_STEP_DB = 1.0

_FLOOR_FRAMES = 10
_ABOVE_FLOOR_DB = 10.0
"""How much louder than the quietest 100 ms a pause may be."""

_EDGE_FRAMES = 5
"""What speech keeps of the silence before and after it, where words fade in and out."""
_MIN_PAUSE_FRAMES = 20
"""Shorter silence belongs to speech: most of it is the closures of consonants.

Source: DIHARD, "Overview" (dihardchallenge.github.io/dihard1/overview.html): pauses of up to
200 ms are bridged. It is the hangover of P.56 as well.
"""


def pauses_in(pcm: Pcm) -> Ranges:
    """Returns the pauses in a piece of speech in ms from its start, in order."""
    power = _frame_powers(pcm)
    if len(power) < _MIN_PAUSE_FRAMES:
        return no_ranges()
    level_db = 10 * np.log10(_smoothed(power, _SMOOTHING_FRAMES))
    floor_db = 10 * np.log10(_smoothed(power, _FLOOR_FRAMES).min())
    limit_db = min(_active_limit_db(power, level_db), floor_db + _ABOVE_FLOOR_DB)
    runs = _runs(level_db < limit_db)
    # At the ends of the piece there is no speech to keep an edge for.
    runs[runs[:, 0] > 0, 0] += _EDGE_FRAMES
    runs[runs[:, 1] < len(level_db), 1] -= _EDGE_FRAMES
    return runs[runs[:, 1] - runs[:, 0] >= _MIN_PAUSE_FRAMES] * _FRAME_MS


def _frame_powers(pcm: Pcm) -> npt.NDArray[np.float64]:
    frame_samples = _FRAME_MS * SAMPLES_PER_MS
    whole = pcm[: len(pcm) // frame_samples * frame_samples].astype(np.float64)
    # Digital silence has a level, too.
    power: npt.NDArray[np.float64] = np.square(whole.reshape(-1, frame_samples)).mean(axis=1) + 0.1
    return power


def _smoothed(power: npt.NDArray[np.float64], num_frames: int) -> npt.NDArray[np.float64]:
    padded = np.pad(power, (num_frames // 2, num_frames - 1 - num_frames // 2), mode="edge")
    return np.convolve(padded, np.full(num_frames, 1 / num_frames), mode="valid")


def _active_limit_db(power: npt.NDArray[np.float64], level_db: npt.NDArray[np.float64]) -> float:
    """Returns the highest level that is at least the margin below that of the active time."""
    frames = np.arange(len(level_db))
    for limit_db in np.arange(level_db.max(), level_db.min(), -_STEP_DB):
        latest = np.maximum.accumulate(np.where(level_db >= limit_db, frames, -len(frames)))
        num_active = int((frames - latest <= _HANGOVER_FRAMES).sum())
        if 10 * np.log10(power.sum() / max(1, num_active)) - limit_db >= _MARGIN_DB:
            return float(limit_db)
    return float(level_db.min())


def _runs(marked: npt.NDArray[np.bool_]) -> Ranges:
    """Returns first and last index, exclusive, of each run of marked frames."""
    edges = np.diff(np.r_[0, marked.astype(np.int8), 0])
    return np.stack([np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)], axis=1)
