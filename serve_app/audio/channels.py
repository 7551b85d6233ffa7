"""Turns the channels of a file into those that are recognized: their mix, or each of them."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt

from serve_app.audio.layout import AudioLimits, FloatSamples

# Time constant of the comparison of channels.
_AVERAGED_S = 0.5
# Channels cancel if their mean has less than this share of the energy that the mean of
# uncorrelated channels would have; for two equally loud ones that is a correlation of -0.8.
_CANCELLED_SHARE = 0.2
# Above this share they no longer do, a correlation of -0.6: between the two nothing changes.
_RESTORED_SHARE = 0.4
# Another channel is used only if it is louder by 3 dB: of two that are one another's
# opposite, each change would invert the signal.
_LOUDER = 2.0
_FADE_S = 0.01


class ChannelMapping(Protocol):
    """Maps the channels of one recording; the files appended to it may have others."""

    @property
    def num_channels(self) -> int:
        """How many channels come out; known once `begin` was called."""
        ...

    @property
    def notices(self) -> tuple[str, ...]:
        """What the caller should know, as sentences; complete after all samples."""
        ...

    def begin(self, num_channels: int) -> None:
        """Announces a file with that many channels.

        Raises:
            UnsupportedAudioLayout: they are too many.
        """
        ...

    def apply(self, samples: FloatSamples, rate_hz: int) -> FloatSamples:
        """Returns the samples, shape [num_channels, n]; NaN and infinite ones are passed on.

        Args:
            samples: the next ones, shape [channels of the file, n].
            rate_hz: their rate.
        """
        ...


class Downmix:
    """Averages the channels, or uses the loudest one where they cancel each other out.

    One channel of a stereo recording may be the other one inverted, by a wrong cable or an
    effect: their mean is silence. The choice changes seldom, and fades from one to the next.
    """

    NOTICE = "The channels cancel each other out in places; the louder one was used there."

    def __init__(self) -> None:
        self._channel_energy: npt.NDArray[np.float64] | None = None
        self._mean_energy = 0.0
        self._used: int | None = None
        self._has_begun = False
        self._has_cancelled = False

    @property
    def num_channels(self) -> int:
        return 1

    @property
    def notices(self) -> tuple[str, ...]:
        return (self.NOTICE,) if self._has_cancelled else ()

    def begin(self, num_channels: int) -> None:
        pass

    def apply(self, samples: FloatSamples, rate_hz: int) -> FloatSamples:
        num_channels, num_samples = samples.shape
        if num_channels == 1:
            return samples
        with np.errstate(over="ignore", invalid="ignore"):
            mean: FloatSamples = samples.mean(axis=0, keepdims=True, dtype=np.float32)
            if not num_samples:
                return mean
            energy = np.einsum("cn,cn->c", samples, samples, dtype=np.float64)
            self._compare(energy, float(np.dot(mean[0], mean[0])), num_samples / rate_hz)
        before, has_begun = self._used, self._has_begun
        self._has_begun = True
        self._used = self._choice(num_channels)
        if self._used is None and before is None:
            return mean
        self._has_cancelled = True
        chosen = _chosen(samples, mean, self._used)
        if before == self._used or not has_begun:
            return chosen
        return _faded(_chosen(samples, mean, before), chosen, max(round(_FADE_S * rate_hz), 1))

    def _compare(
        self, energy: npt.NDArray[np.float64], mean_energy: float, duration_s: float
    ) -> None:
        """Updates the averages, which decay with the time constant `_AVERAGED_S`."""
        if not (np.isfinite(energy).all() and math.isfinite(mean_energy)):
            return
        kept = math.exp(-duration_s / _AVERAGED_S)
        if self._channel_energy is None or len(self._channel_energy) != len(energy):
            self._channel_energy, self._mean_energy = energy, mean_energy
            # The choice so far was between other channels.
            self._used, self._has_begun = None, False
        else:
            self._channel_energy = kept * self._channel_energy + energy
            self._mean_energy = kept * self._mean_energy + mean_energy

    def _choice(self, num_channels: int) -> int | None:
        """Returns the channel to use, None for the mean."""
        energy = self._channel_energy
        if energy is None or len(energy) != num_channels:
            return None
        unrelated = float(energy.sum()) / num_channels**2
        share = _CANCELLED_SHARE if self._used is None else _RESTORED_SHARE
        if not self._mean_energy < share * unrelated:
            return None
        loudest = int(energy.argmax())
        if self._used is None or energy[loudest] > _LOUDER * energy[self._used]:
            return loudest
        return self._used


def _chosen(samples: FloatSamples, mean: FloatSamples, used: int | None) -> FloatSamples:
    return mean if used is None else np.ascontiguousarray(samples[used : used + 1])


def _faded(before: FloatSamples, after: FloatSamples, num_samples: int) -> FloatSamples:
    """Returns `after`, whose beginning fades in from `before`."""
    num_samples = min(num_samples, after.shape[1])
    rising = np.arange(1, num_samples + 1, dtype=np.float32) / np.float32(num_samples)
    faded = after.copy()
    faded[:, :num_samples] = after[:, :num_samples] * rising + before[:, :num_samples] * (
        1 - rising
    )
    return faded


class SeparateChannels:
    """Keeps the channels apart, as many as the first file has.

    Where the number differs later, the mix of the channels becomes the first one, so that
    nothing is lost or recognized twice.

    Args:
        limits: of accepted recordings.
    """

    NOTICE = (
        "The number of channels changes within the recording; where it differs from that of its "
        "beginning, the channels were mixed and recognized as the first one."
    )

    def __init__(self, limits: AudioLimits) -> None:
        self._limits = limits
        self._num_channels = 0
        self._mix = Downmix()
        self._has_changed = False

    @property
    def num_channels(self) -> int:
        return self._num_channels

    @property
    def notices(self) -> tuple[str, ...]:
        return (self.NOTICE, *self._mix.notices) if self._has_changed else ()

    def begin(self, num_channels: int) -> None:
        if not self._num_channels:
            self._limits.check_separate(num_channels)
            self._num_channels = num_channels

    def apply(self, samples: FloatSamples, rate_hz: int) -> FloatSamples:
        if len(samples) == self._num_channels:
            return samples
        self._has_changed = True
        mapped = np.zeros((self._num_channels, samples.shape[1]), np.float32)
        mapped[0] = self._mix.apply(samples, rate_hz)[0]
        return mapped
