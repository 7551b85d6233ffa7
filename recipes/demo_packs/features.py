"""The acoustic features that FunASR's WavFrontend computes, vectorized in numpy.

80 log mel filter bank energies of 25 ms Hamming windows every 10 ms at int16
scale, seven frames stacked every six (60 ms a row), then mean and variance
normalization. The formulas are Kaldi's (`compute-fbank-feats`, snip-edges,
pre-emphasis 0.97, no dither) and FunASR 1.4.16's `apply_lfr`.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recipes.demo_packs.synthesizer import SAMPLE_RATE_HZ

NUM_MELS = 80
STACK, STRIDE = 7, 6
WIDTH = NUM_MELS * STACK
ROW_S = STRIDE * 0.010
_WINDOW, _SHIFT, _FFT = 400, 160, 512

Matrix = npt.NDArray[np.float32]


def log_mel(samples: Matrix) -> Matrix:
    """Compute (num_frames, 80) log mel energies of float samples in [-1, 1]."""
    num_frames = max(0, 1 + (len(samples) - _WINDOW) // _SHIFT)
    if num_frames == 0:
        return np.zeros((0, NUM_MELS), np.float32)
    scaled = samples.astype(np.float32) * np.float32(32768.0)
    frames = np.lib.stride_tricks.sliding_window_view(scaled, _WINDOW)[::_SHIFT][:num_frames]
    frames = frames - frames.mean(axis=1, keepdims=True)
    previous = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    frames = (frames - np.float32(0.97) * previous) * _hamming()
    power = np.square(np.abs(np.fft.rfft(frames, _FFT, axis=1))).astype(np.float32)
    energies = power[:, : _FFT // 2] @ _mel_banks()
    return np.asarray(np.log(np.maximum(energies, np.finfo(np.float32).eps)), np.float32)


def stack_frames(frames: Matrix) -> Matrix:
    """Stack seven frames every six, repeating the first and last at the edges."""
    if len(frames) == 0:
        return np.zeros((0, WIDTH), np.float32)
    num_rows = -(-len(frames) // STRIDE)
    places = np.arange(num_rows)[:, None] * STRIDE + np.arange(STACK) - (STACK - 1) // 2
    rows = frames[np.clip(places, 0, len(frames) - 1)]
    return np.asarray(rows.reshape(num_rows, WIDTH), np.float32)


def row_centers_s(num_rows: int) -> npt.NDArray[np.float64]:
    """The time at the middle of each stacked row, in seconds."""
    return np.arange(num_rows, dtype=np.float64) * ROW_S + _WINDOW / SAMPLE_RATE_HZ / 2


def write_cmvn(path: Path, cmvn: Matrix) -> None:
    """Write (2, 560) shift and scale as the Kaldi nnet text that FunASR reads."""
    shift, scale = (" ".join(f"{value:.6g}" for value in row) for row in cmvn)
    size = f"{WIDTH} {WIDTH}"
    path.write_text(
        f"<Nnet>\n<Splice> {size}\n[ 0 ]\n"
        f"<AddShift> {size}\n<LearnRateCoef> 0 [ {shift} ]\n"
        f"<Rescale> {size}\n<LearnRateCoef> 0 [ {scale} ]\n</Nnet>\n"
    )


def read_cmvn(path: Path) -> Matrix:
    """Read shift and scale, float32 (2, 560)."""
    rows = [
        line.split("[")[1].split("]")[0].split()
        for line in path.read_text().splitlines()
        if line.startswith("<LearnRateCoef>")
    ]
    return np.array(rows, np.float32)


def normalize(rows: Matrix, cmvn: Matrix) -> Matrix:
    """Shift and scale stacked rows."""
    return np.asarray((rows + cmvn[0]) * cmvn[1], np.float32)


@functools.cache
def _hamming() -> Matrix:
    phase = 2 * np.pi * np.arange(_WINDOW) / (_WINDOW - 1)
    return np.asarray(0.54 - 0.46 * np.cos(phase), np.float32)


@functools.cache
def _mel_banks() -> Matrix:
    def mel(frequency_hz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(1127.0 * np.log1p(frequency_hz / 700.0))

    low, high = mel(np.array([20.0, SAMPLE_RATE_HZ / 2]))
    edges = np.linspace(low, high, NUM_MELS + 2)
    bins = mel(np.arange(_FFT // 2) * SAMPLE_RATE_HZ / _FFT)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.asarray(np.maximum(0.0, np.minimum(rising, falling)), np.float32)
