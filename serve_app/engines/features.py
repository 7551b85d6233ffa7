"""Acoustic features as FunASR's models were trained on them.

Source: the filterbank follows Kaldi's `feature-window.cc` and `mel-computations.cc`,
as kaldi-native-fbank 1.22 computes them with the settings of FunASR 1.4.16
(`frontends/wav_frontend.py`).
"""

from __future__ import annotations

import functools
import math
from typing import Literal

import torch

from serve_app.engines.framing import FRAME_SAMPLES, SHIFT_SAMPLES, num_frames
from serve_app.scheduling.preemption import yield_point

__all__ = [
    "FRAME_SAMPLES",
    "NUM_MEL_BINS",
    "SHIFT_SAMPLES",
    "apply_cmvn",
    "lfr",
    "log_mel",
    "mel_filters",
    "num_frames",
]

NUM_MEL_BINS = 80

_SAMPLE_RATE_HZ = 16_000
_LOW_HZ = 20.0
_PREEMPHASIS = 0.97
_FFT_SIZE = 512
# Small enough that a block's spectra stay in a core's L2 cache.
_BLOCK_FRAMES = 256


def log_mel(pcm: torch.Tensor, window: Literal["hamming", "povey"] = "hamming") -> torch.Tensor:
    """Computes log mel energies, one row per 10 ms.

    Input is processed in blocks, so that memory beyond the result is constant.

    Args:
        pcm: samples, float32 [n], at the scale that the model was trained on: that of int16
            (-32768 to 32767), or -1 to 1.
        window: over each frame; "povey" is Kaldi's default.

    Returns:
        float32 [T, 80] with T = (n - 400) // 160 + 1, or T = 0 below 400 samples.
    """
    count = num_frames(pcm.shape[0])
    features = pcm.new_empty((count, NUM_MEL_BINS), dtype=torch.float32)
    for first in range(0, count, _BLOCK_FRAMES):
        yield_point()
        last = min(first + _BLOCK_FRAMES, count)
        samples = pcm[first * SHIFT_SAMPLES : (last - 1) * SHIFT_SAMPLES + FRAME_SAMPLES]
        features[first:last] = _log_mel_block(samples, window)
    return features


def _log_mel_block(samples: torch.Tensor, window: str) -> torch.Tensor:
    frames = samples.unfold(0, FRAME_SAMPLES, SHIFT_SAMPLES)
    frames = frames - frames.mean(dim=1, keepdim=True)
    emphasized = torch.empty_like(frames)
    torch.sub(frames[:, 1:], frames[:, :-1], alpha=_PREEMPHASIS, out=emphasized[:, 1:])
    emphasized[:, 0] = frames[:, 0] * (1.0 - _PREEMPHASIS)
    emphasized *= _frame_window(window, samples.device)
    # Kaldi's filters omit the bin at the Nyquist frequency.
    spectrum = torch.fft.rfft(emphasized, n=_FFT_SIZE)[:, :-1]
    power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
    energies: torch.Tensor = power @ mel_filters(samples.device)
    return energies.clamp_min_(torch.finfo(torch.float32).eps).log_()


@functools.cache
def _frame_window(name: str, device: torch.device) -> torch.Tensor:
    if name == "povey":
        window = torch.hann_window(FRAME_SAMPLES, periodic=False, dtype=torch.float64) ** 0.85
    else:
        window = torch.hamming_window(FRAME_SAMPLES, periodic=False, dtype=torch.float64)
    return window.to(device, torch.float32)


@functools.cache
def mel_filters(device: torch.device) -> torch.Tensor:
    """Returns triangular mel filters, [256, 80]: power to energies."""

    def mel(hertz: torch.Tensor) -> torch.Tensor:
        return 1127.0 * torch.log1p(hertz / 700.0)

    bins_hz = torch.arange(_FFT_SIZE // 2, dtype=torch.float64) * _SAMPLE_RATE_HZ / _FFT_SIZE
    ends = mel(torch.tensor([_LOW_HZ, _SAMPLE_RATE_HZ / 2], dtype=torch.float64))
    edges = torch.linspace(float(ends[0]), float(ends[1]), NUM_MEL_BINS + 2, dtype=torch.float64)
    left, center, right = edges[:-2], edges[1:-1], edges[2:]
    bins = mel(bins_hz)[:, None]
    rising = (bins - left) / (center - left)
    falling = (right - bins) / (right - center)
    return torch.minimum(rising, falling).clamp_min(0.0).to(device, torch.float32)


def lfr(features: torch.Tensor, m: int, n: int) -> torch.Tensor:
    """Stacks m neighboring frames into one, every n frames (low frame rate).

    Row i starts at frame i * n - (m - 1) // 2; the first and the last frame are repeated beyond
    the ends.

    Args:
        features: [T, dim].
        m: frames per row.
        n: frames between rows.

    Returns:
        [ceil(T / n), m * dim].

    Source: `apply_lfr` of FunASR 1.4.16, `frontends/wav_frontend.py`.
    """
    count, dim = features.shape
    rows = math.ceil(count / n)
    if rows == 0:
        return features.new_empty((0, m * dim))
    starts = torch.arange(rows, device=features.device) * n - (m - 1) // 2
    index = starts[:, None] + torch.arange(m, device=features.device)
    return features[index.clamp_(0, count - 1)].reshape(rows, m * dim)


def apply_cmvn(features: torch.Tensor, cmvn: torch.Tensor) -> torch.Tensor:
    """Normalizes [T, dim] features: adds the shift cmvn[0], then scales by cmvn[1]."""
    return (features + cmvn[0]) * cmvn[1]
