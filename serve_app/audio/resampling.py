"""Resamples audio to int16 at 16 kHz, as a stream."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import soxr

from serve_app.audio.layout import FloatSamples, Frame
from serve_app.core.records import SAMPLE_RATE_HZ

# Larger samples are errors; libsoxr's sums must stay finite.
_MAX_AMPLITUDE = 4.0


ChannelPcm: TypeAlias = npt.NDArray[np.int16]
"""Samples, shape [channels, n], 16 kHz."""


class PcmResampler:
    """Turns frames into int16 samples; the rate may change between frames.

    At 16 kHz, samples pass through unchanged: 16-bit files are reproduced bit for bit. Each
    channel has a filter of its own, so that its samples do not depend on the others.

    Args:
        num_channels: of all frames.
    """

    def __init__(self, num_channels: int = 1) -> None:
        self._num_channels = num_channels
        self._rate_hz = SAMPLE_RATE_HZ
        self._streams: list[soxr.ResampleStream] = []

    def push(self, frame: Frame) -> ChannelPcm:
        """Returns the samples that are ready, possibly none."""
        flushed = np.zeros((self._num_channels, 0), np.int16)
        if frame.rate_hz != self._rate_hz:
            flushed = self.finish()
            self._rate_hz = frame.rate_hz
            self._streams = [
                soxr.ResampleStream(frame.rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")
                for _ in range(self._num_channels)
            ]
        if not self._streams:
            return _to_int16(frame.samples)
        samples = np.ascontiguousarray(np.clip(frame.samples, -_MAX_AMPLITUDE, _MAX_AMPLITUDE))
        resampled = self._resampled(samples)
        return np.concatenate([flushed, resampled], axis=1) if flushed.size else resampled

    def finish(self) -> ChannelPcm:
        """Returns the samples that the filter still holds; the next frame starts a new filter."""
        if not self._streams:
            return np.zeros((self._num_channels, 0), np.int16)
        rest = self._resampled(np.zeros((self._num_channels, 0), np.float32), last=True)
        self._streams = []
        self._rate_hz = SAMPLE_RATE_HZ
        return rest

    def _resampled(self, samples: FloatSamples, *, last: bool = False) -> ChannelPcm:
        channels = [
            stream.resample_chunk(channel, last=last)
            for stream, channel in zip(self._streams, samples, strict=True)
        ]
        return _to_int16(np.stack(channels))


def _to_int16(samples: FloatSamples) -> ChannelPcm:
    pcm: ChannelPcm = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
    return pcm
