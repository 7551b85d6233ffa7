"""Mono samples at any rate -> int16 at 16 kHz, in a stream."""

from __future__ import annotations

import numpy as np
import soxr

from serve_app.audio.layout import Block, FloatMono
from serve_app.core.records import SAMPLE_RATE_HZ, Pcm

# Past this a sample is an accident; libsoxr's sums must stay finite.
_MAX_AMPLITUDE = 4.0


class PcmResampler:
    """Turns blocks into int16 samples; the rate may change between blocks.

    16 kHz passes through unchanged, so 16-bit samples come out bit for bit.
    """

    def __init__(self) -> None:
        self._rate_hz = SAMPLE_RATE_HZ
        self._stream: soxr.ResampleStream | None = None

    def push(self, block: Block) -> Pcm:
        """Returns what is ready, possibly nothing."""
        flushed = np.zeros(0, np.int16)
        if block.rate_hz != self._rate_hz:
            flushed = self.finish()
            self._rate_hz = block.rate_hz
            self._stream = soxr.ResampleStream(
                block.rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ"
            )
        if self._stream is None:
            return _to_int16(block.samples)
        samples = np.ascontiguousarray(np.clip(block.samples, -_MAX_AMPLITUDE, _MAX_AMPLITUDE))
        resampled = _to_int16(self._stream.resample_chunk(samples))
        return np.concatenate([flushed, resampled]) if len(flushed) else resampled

    def finish(self) -> Pcm:
        """Returns the samples that the filter still holds; the next block starts anew."""
        if self._stream is None:
            return np.zeros(0, np.int16)
        rest = self._stream.resample_chunk(np.zeros(0, np.float32), last=True)
        self._stream = None
        self._rate_hz = SAMPLE_RATE_HZ
        return _to_int16(rest)


def _to_int16(samples: FloatMono) -> Pcm:
    pcm: Pcm = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
    return pcm
