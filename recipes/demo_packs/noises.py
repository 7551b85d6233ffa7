"""Sounds without speech: noise, hum, clicks and simple music.

Every function returns float32 of the asked length at 16 kHz with an RMS of one;
the caller sets the level.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recipes.demo_packs.synthesizer import SAMPLE_RATE_HZ

Samples = npt.NDArray[np.float32]
_SLOPES = {"white": 0.0, "pink": 0.5, "brown": 1.0}  # amplitude falls as f ** -slope
NOISES = (*_SLOPES, "band", "hum", "clicks", "gusts")
MUSIC = ("chords", "arpeggio", "drums", "sweep", "melody")


def make_noise(kind: str, num_samples: int, rng: np.random.Generator) -> Samples:
    """Make one of `NOISES`."""
    if kind == "hum":
        return _unit(_hum(num_samples, rng))
    if kind == "clicks":
        return _unit(_clicks(num_samples, rng))
    noise = _shaped(num_samples, _SLOPES.get(kind, 0.5), rng)
    if kind == "band":
        center_hz = float(np.exp(rng.uniform(np.log(150), np.log(6_000))))
        noise = _band_pass(noise, center_hz * 0.6, center_hz * 1.6)
    if kind == "gusts":
        swell = np.interp(
            np.arange(num_samples),
            np.linspace(0, num_samples, 8),
            rng.uniform(0.05, 1.0, 8),
        )
        noise = noise * swell.astype(np.float32)
    return _unit(noise)


def make_music(kind: str, num_samples: int, rng: np.random.Generator) -> Samples:
    """Make one of `MUSIC`."""
    if kind == "sweep":
        return _unit(_sweep(num_samples, rng))
    if kind == "drums":
        return _unit(_drums(num_samples, rng))
    out = np.zeros(num_samples, np.float32)
    step = int(SAMPLE_RATE_HZ * rng.uniform(0.12, 0.6))
    root_hz = float(rng.uniform(90, 400))
    semitones = (0, 2, 4, 5, 7, 9, 11, 12, 16, 19)
    for count, start in enumerate(range(0, num_samples, step)):
        if kind == "chords":
            notes, length = rng.choice(semitones, 3), step * 2
        elif kind == "arpeggio":
            notes, length = np.array([semitones[(0, 2, 4, 7)[count % 4]]]), step * 2
        else:
            notes, length = rng.choice(semitones, 1), step
        for note in notes:
            tone = _note(root_hz * 2.0 ** (float(note) / 12.0), length, rng)
            stop = min(num_samples, start + length)
            out[start:stop] += tone[: stop - start]
    return _unit(out)


def scale_to_rms(samples: Samples, rms: float) -> Samples:
    """Scale to a root mean square; silence stays silent."""
    return (_unit(samples) * np.float32(rms)).astype(np.float32)


def root_mean_square(samples: Samples) -> float:
    """The root mean square of samples, 0.0 without any."""
    return float(np.sqrt(np.mean(np.square(samples)))) if len(samples) else 0.0


def band_limit(samples: Samples, low_hz: float, high_hz: float) -> Samples:
    """Keep what a telephone would keep; the sample rate stays 16 kHz."""
    return _band_pass(samples, low_hz, high_hz)


def _unit(samples: Samples) -> Samples:
    rms = root_mean_square(samples)
    return samples if rms < 1e-9 else (samples / np.float32(rms)).astype(np.float32)


def _fast_length(num_samples: int) -> int:
    # A length of few small factors keeps the FFT fast whatever was asked for.
    return -(-max(num_samples, 1) // 4_000) * 4_000


def _shaped(num_samples: int, slope: float, rng: np.random.Generator) -> Samples:
    length = _fast_length(num_samples)
    num_bins = length // 2 + 1
    white = rng.standard_normal((2, num_bins), np.float32)
    spectrum = white[0] + 1j * white[1]
    bins = np.maximum(np.arange(num_bins, dtype=np.float32), length * 20.0 / SAMPLE_RATE_HZ)
    noise = np.fft.irfft(spectrum * bins**-slope, length)[:num_samples]
    return noise.astype(np.float32)


def _band_pass(samples: Samples, low_hz: float, high_hz: float) -> Samples:
    length = _fast_length(len(samples))
    spectrum = np.fft.rfft(samples, length)
    frequencies_hz = np.fft.rfftfreq(length, 1.0 / SAMPLE_RATE_HZ)
    gain = 1.0 / (1.0 + (low_hz / np.maximum(frequencies_hz, 1.0)) ** 8)
    gain /= 1.0 + (frequencies_hz / high_hz) ** 12
    return np.fft.irfft(spectrum * gain, length)[: len(samples)].astype(np.float32)


def _times_s(num_samples: int) -> npt.NDArray[np.float32]:
    return np.arange(num_samples, dtype=np.float32) / np.float32(SAMPLE_RATE_HZ)


def _hum(num_samples: int, rng: np.random.Generator) -> Samples:
    time_s = _times_s(num_samples)
    mains_hz = rng.choice((50.0, 60.0))
    out = 0.02 * rng.standard_normal(num_samples, np.float32)
    for harmonic in range(1, 9):
        out += (
            rng.uniform(0, 1)
            / harmonic
            * np.sin(2 * np.pi * mains_hz * harmonic * time_s + rng.uniform(0, 6))
        )
    return out.astype(np.float32)


def _clicks(num_samples: int, rng: np.random.Generator) -> Samples:
    out = 0.003 * rng.standard_normal(num_samples, np.float32)
    for start in rng.integers(0, max(1, num_samples - 400), max(1, num_samples // 4_000)):
        length = min(int(rng.integers(40, 400)), num_samples - int(start))
        decay = np.exp(-np.arange(length, dtype=np.float32) / (length / 5.0))
        click = rng.standard_normal(length, np.float32) * decay
        out[start : start + length] += np.float32(rng.uniform(0.2, 1)) * click
    return out


def _note(frequency_hz: float, num_samples: int, rng: np.random.Generator) -> Samples:
    time_s = _times_s(num_samples)
    attack = np.minimum(1.0, time_s / 0.01)
    decay = np.exp(-time_s * rng.uniform(0.5, 6.0))
    tone = np.zeros(num_samples, np.float32)
    for partial in range(1, 6):
        if frequency_hz * partial < SAMPLE_RATE_HZ / 2:
            strength = rng.uniform(0.3, 1.0) / partial ** rng.uniform(0.7, 2.0)
            tone += strength * np.sin(2 * np.pi * frequency_hz * partial * time_s)
    return np.asarray(tone * attack * decay, np.float32)


def _drums(num_samples: int, rng: np.random.Generator) -> Samples:
    out = np.zeros(num_samples, np.float32)
    step = int(SAMPLE_RATE_HZ * rng.uniform(0.15, 0.45))
    for start in range(0, num_samples, step):
        length = min(step, num_samples - start)
        time_s = _times_s(length)
        if rng.random() < 0.5:
            hit = np.sin(2 * np.pi * (45 + 60 * np.exp(-time_s * 30)) * time_s)
            hit = hit * np.exp(-time_s * 12)
        else:
            hit = rng.standard_normal(length, np.float32) * np.exp(-time_s * rng.uniform(15, 60))
        out[start : start + length] += hit.astype(np.float32)
    return out


def _sweep(num_samples: int, rng: np.random.Generator) -> Samples:
    knots_hz = np.exp(rng.uniform(np.log(80), np.log(5_000), 4))
    frequency_hz = np.interp(np.arange(num_samples), np.linspace(0, num_samples, 4), knots_hz)
    return np.sin(2 * np.pi * np.cumsum(frequency_hz) / SAMPLE_RATE_HZ).astype(np.float32)
