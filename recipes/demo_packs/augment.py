"""Augments synthetic speech with silence, noise, gain and band limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recipes.demo_packs.noises import (
    MUSIC,
    NOISES,
    Samples,
    band_limit,
    make_music,
    make_noise,
    root_mean_square,
    scale_to_rms,
)
from recipes.demo_packs.synthesizer import SAMPLE_RATE_HZ, Speech

_PEAK = 0.99
_TELEPHONE_HZ = (250.0, 3_500.0)


def join_with_gaps(pieces: list[Speech], gaps_s: list[float]) -> Speech:
    """Join utterances; gaps_s[i] is the silence before pieces[i + 1]."""
    samples = [pieces[0].samples]
    spans = [pieces[0].spans]
    for piece, gap_s in zip(pieces[1:], gaps_s, strict=True):
        samples.append(np.zeros(round(gap_s * SAMPLE_RATE_HZ), np.float32))
        start_s = sum(map(len, samples)) / SAMPLE_RATE_HZ
        samples.append(piece.samples)
        spans.append(piece.spans + start_s)
    characters = "".join(piece.characters for piece in pieces)
    return Speech(np.concatenate(samples), characters, np.concatenate(spans))


def pad_with_silence(speech: Speech, before_s: float, after_s: float) -> Speech:
    """Put silence around an utterance; negative values cut its edges off."""
    samples = speech.samples
    if after_s < 0:
        samples = samples[: round(after_s * SAMPLE_RATE_HZ)]
    if before_s < 0:
        samples = samples[round(-before_s * SAMPLE_RATE_HZ) :]
    before, after = (max(0, round(s * SAMPLE_RATE_HZ)) for s in (before_s, after_s))
    samples = np.pad(samples, (before, after))
    spans = np.clip(speech.spans + before_s, 0.0, len(samples) / SAMPLE_RATE_HZ)
    return replace(speech, samples=samples, spans=spans)


def trim_edges(speech: Speech, keep_s: float = 0.02) -> Speech:
    """Cut the synthesizer's own silence, except for keep_s at either end."""
    after_s = len(speech.samples) / SAMPLE_RATE_HZ - float(speech.spans[-1, 1])
    before_s = float(speech.spans[0, 0])
    return pad_with_silence(speech, min(0.0, keep_s - before_s), min(0.0, keep_s - after_s))


def add_noise(samples: Samples, noise: Samples, snr_db: float) -> Samples:
    """Add noise of the same length at a ratio to the speech's loud parts."""
    blocks = samples[: len(samples) // 400 * 400].reshape(-1, 400)
    levels = np.sqrt(np.mean(np.square(blocks), axis=1))
    spoken = levels[levels > 0.1 * levels.max()] if len(levels) else levels
    level = root_mean_square(spoken)
    return samples + scale_to_rms(noise, level * 10.0 ** (-snr_db / 20.0))


def set_peak(samples: Samples, peak: float) -> Samples:
    """Scale to a peak, for instance one without clipping."""
    loudest = float(np.max(np.abs(samples), initial=0.0))
    return samples * np.float32(peak / loudest) if loudest > 0 else samples


def distort(samples: Samples, rng: np.random.Generator, babble: Samples | None) -> Samples:
    """Apply gain, noise and sometimes a telephone's band to clean speech."""
    if rng.random() < 0.65:
        samples = add_noise(samples, _draw_noise(len(samples), rng, babble), rng.uniform(8, 40))
    if rng.random() < 0.05:
        samples = band_limit(samples, *_TELEPHONE_HZ)
    samples = samples * np.float32(10.0 ** (rng.uniform(-14, 6) / 20.0))
    return np.clip(samples, -_PEAK, _PEAK)


def draw_wordless(rng: np.random.Generator, num_samples: int) -> Samples:
    """Draw a clip without speech, from digital silence to loud music."""
    kind = rng.random()
    if kind < 0.15:
        return np.zeros(num_samples, np.float32)
    if kind < 0.6:
        samples = make_noise(str(rng.choice(NOISES)), num_samples, rng)
    else:
        samples = make_music(str(rng.choice(MUSIC)), num_samples, rng)
        if rng.random() < 0.5:
            hiss = make_noise("pink", num_samples, rng)
            samples = samples + np.float32(10.0 ** (rng.uniform(-40, -5) / 20.0)) * hiss
    if rng.random() < 0.3:  # something that begins or ends in the middle
        edge = int(rng.integers(0, num_samples))
        samples[:edge] *= np.float32(rng.choice((0.0, 0.1)))
    samples = scale_to_rms(samples, 10.0 ** (rng.uniform(-75, -10) / 20.0))
    return np.clip(samples, -_PEAK, _PEAK)


def _draw_noise(num_samples: int, rng: np.random.Generator, babble: Samples | None) -> Samples:
    kind = rng.random()
    if babble is not None and kind < 0.15:
        return babble
    if kind < 0.3:
        return make_music(str(rng.choice(MUSIC)), num_samples, rng)
    return make_noise(str(rng.choice(NOISES)), num_samples, rng)
