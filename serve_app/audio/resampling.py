"""Mixes channels down to mono and resamples mono audio to int16 at 16 kHz, as a stream."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import soxr

from serve_app.audio.layout import FloatMono, MonoFrame
from serve_app.core.records import SAMPLE_RATE_HZ, Pcm

# Larger samples are errors; libsoxr's sums must stay finite.
_MAX_AMPLITUDE = 4.0


class PcmResampler:
    """Turns frames into int16 samples; the rate may change between frames.

    At 16 kHz, samples pass through unchanged: 16-bit files are reproduced bit for bit.
    """

    def __init__(self) -> None:
        self._rate_hz = SAMPLE_RATE_HZ
        self._stream: soxr.ResampleStream | None = None

    def push(self, frame: MonoFrame) -> Pcm:
        """Returns the samples that are ready, possibly none."""
        flushed = np.zeros(0, np.int16)
        if frame.rate_hz != self._rate_hz:
            flushed = self.finish()
            self._rate_hz = frame.rate_hz
            self._stream = soxr.ResampleStream(
                frame.rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ"
            )
        if self._stream is None:
            return _to_int16(frame.samples)
        samples = np.ascontiguousarray(np.clip(frame.samples, -_MAX_AMPLITUDE, _MAX_AMPLITUDE))
        resampled = _to_int16(self._stream.resample_chunk(samples))
        return np.concatenate([flushed, resampled]) if len(flushed) else resampled

    def finish(self) -> Pcm:
        """Returns the samples that the filter still holds; the next frame starts a new filter."""
        if self._stream is None:
            return np.zeros(0, np.int16)
        rest = self._stream.resample_chunk(np.zeros(0, np.float32), last=True)
        self._stream = None
        self._rate_hz = SAMPLE_RATE_HZ
        return _to_int16(rest)


def _to_int16(samples: FloatMono) -> Pcm:
    pcm: Pcm = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
    return pcm


# Time constant of the comparison of channels.
_AVERAGED_S = 0.5
# Channels cancel if their mean has less than this share of the energy that the mean of
# uncorrelated channels would have; for two equally loud ones that is a correlation of -0.8.
_CANCELLED_SHARE = 0.2


class Downmixer:
    """Averages the channels, or uses the loudest one where they cancel each other out.

    One channel of a stereo recording may be the other one inverted, by a wrong cable or an
    effect: their mean is silence.
    """

    NOTICE = "The channels cancel each other out in places; the louder one was used there."

    def __init__(self) -> None:
        self._channel_energy: npt.NDArray[np.float64] | None = None
        self._mean_energy = 0.0
        self.has_cancelled = False
        """Whether the loudest channel was used anywhere."""

    def mix(self, samples: npt.NDArray[np.float32], rate_hz: int) -> FloatMono:
        """Returns one channel; NaN and infinite samples are passed on.

        Args:
            samples: shape [channels, n], full scale at 1.0.
            rate_hz: their rate.
        """
        num_channels, num_samples = samples.shape
        if num_channels == 1:
            only: FloatMono = samples[0]
            return only
        with np.errstate(over="ignore", invalid="ignore"):
            mono: FloatMono = samples.mean(axis=0, dtype=np.float32)
            if not num_samples:
                return mono
            energy = np.einsum("cn,cn->c", samples, samples, dtype=np.float64)
            self._compare(energy, float(np.dot(mono, mono)), num_samples / rate_hz)
        if not self._cancels():
            return mono
        self.has_cancelled = True
        assert self._channel_energy is not None  # noqa: S101 - set by _compare
        return np.ascontiguousarray(samples[int(self._channel_energy.argmax())])

    def _compare(
        self, energy: npt.NDArray[np.float64], mean_energy: float, duration_s: float
    ) -> None:
        """Updates the averages, which decay with the time constant `_AVERAGED_S`."""
        if not (np.isfinite(energy).all() and math.isfinite(mean_energy)):
            return
        kept = math.exp(-duration_s / _AVERAGED_S)
        if self._channel_energy is None or len(self._channel_energy) != len(energy):
            self._channel_energy, self._mean_energy = energy, mean_energy
        else:
            self._channel_energy = kept * self._channel_energy + energy
            self._mean_energy = kept * self._mean_energy + mean_energy

    def _cancels(self) -> bool:
        if self._channel_energy is None:
            return False
        unrelated = float(self._channel_energy.sum()) / len(self._channel_energy) ** 2
        return self._mean_energy < _CANCELLED_SHARE * unrelated
