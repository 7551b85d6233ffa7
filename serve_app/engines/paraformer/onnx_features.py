"""Power spectra without PyTorch; the graph of an ONNX pack does the rest.

Source: as `serve_app.engines.features`.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from serve_app.core.records import Pcm
from serve_app.engines.framing import FRAME_SAMPLES, SHIFT_SAMPLES, num_frames

NUM_BINS = 256

_PREEMPHASIS = np.float32(0.97)
_FFT_SIZE = 512
# Small enough that a block's spectra stay in a core's L2 cache.
_BLOCK_FRAMES = 256


def power_spectra(pcm: Pcm) -> npt.NDArray[np.float32]:
    """Power per frequency of each 10 ms, without the one at the Nyquist frequency.

    Args:
        pcm: samples, [n].

    Returns:
        float32 [T, 256] with T = (n - 400) // 160 + 1, or T = 0 below 400 samples.
    """
    count = num_frames(len(pcm))
    power = np.empty((count, NUM_BINS), dtype=np.float32)
    for first in range(0, count, _BLOCK_FRAMES):
        last = min(first + _BLOCK_FRAMES, count)
        samples = pcm[first * SHIFT_SAMPLES : (last - 1) * SHIFT_SAMPLES + FRAME_SAMPLES]
        windows = sliding_window_view(samples.astype(np.float32), FRAME_SAMPLES)[::SHIFT_SAMPLES]
        power[first:last] = _power(windows)
    return power


def _power(windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    centred = windows - windows.mean(axis=1, keepdims=True)
    emphasised = np.empty_like(centred)
    np.multiply(centred[:, :-1], -_PREEMPHASIS, out=emphasised[:, 1:])
    emphasised[:, 1:] += centred[:, 1:]
    emphasised[:, 0] = centred[:, 0] * (np.float32(1.0) - _PREEMPHASIS)
    emphasised *= _hamming()
    spectrum = np.fft.rfft(emphasised, n=_FFT_SIZE)[:, :NUM_BINS]
    power: npt.NDArray[np.float32] = np.square(spectrum.real) + np.square(spectrum.imag)
    return power


@functools.cache
def _hamming() -> npt.NDArray[np.float32]:
    return np.hamming(FRAME_SAMPLES).astype(np.float32)
