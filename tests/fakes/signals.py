"""Sounds to test with where no words are needed."""

from __future__ import annotations

import numpy as np

from serve_app.core.records import SAMPLE_RATE_HZ, Pcm


def speech_like(num_samples: int, seed: int) -> Pcm:
    """A gliding tone with harmonics in syllables of about 0.2 s, over noise."""
    generator = np.random.default_rng(seed)
    time_s = np.arange(num_samples) / SAMPLE_RATE_HZ
    pitch_hz = generator.uniform(100, 220)
    phase = 2 * np.pi * pitch_hz * time_s + 8 * np.sin(2 * np.pi * 0.7 * time_s)
    orders = np.arange(1, 12)[:, None]
    voice = (np.sin(orders * phase) / orders).sum(axis=0)
    syllables = np.clip(np.sin(2 * np.pi * generator.uniform(2, 3) * time_s), 0, 1)
    noise = generator.normal(0, 60, num_samples)
    samples: Pcm = (2500 * voice * syllables + noise).astype(np.int16)
    return samples
