"""A synthetic sound that loads a recognizer as speech does; made without PyTorch."""

from __future__ import annotations

import numpy as np

from serve_app.core.records import SAMPLE_RATE_HZ, Pcm

TOKENS_PER_S = 4.5
"""Token rate for which packs with random weights are calibrated."""

_LENGTH_S = 20


def speech_like() -> Pcm:
    """Returns a sound with the loudness and rhythm of speech: harmonics in syllables."""
    generator = np.random.default_rng(0)
    time_s = np.arange(_LENGTH_S * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    phase = 2 * np.pi * 140 * time_s + 12 * np.sin(2 * np.pi * 0.4 * time_s)
    orders = np.arange(1, 21)[:, None]
    # The upper harmonics vary over time, as vowels do.
    color = 1 + np.sin(2 * np.pi * (0.9 + 0.13 * orders) * time_s + orders)
    voice = (color * np.sin(orders * phase) / orders).sum(axis=0)
    syllables = np.clip(np.sin(2 * np.pi * 2.25 * time_s) + 0.3, 0, 1)
    breath = generator.normal(0, 300, len(time_s)) * (1 - syllables)
    samples: Pcm = (2000 * voice * syllables + breath).astype(np.int16)
    return samples
