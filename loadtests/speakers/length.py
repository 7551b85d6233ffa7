"""Time and memory of the clustering of a long conversation, in a fresh process for each."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from loadtests.harness.child import Meter, send
from loadtests.harness.watch import forget_peak, memory
from loadtests.speakers.systems import num_speakers, turns_by
from serve_app.core.speakers import STEP_MS, WINDOW_MS, Embeddings, SpeakerWindows

_TURN_WINDOWS = (3, 40)
_NOISE = 0.5
"""Length of what is added to a mean of two windows, so that windows are as unlike as real ones."""


def long_conversation(voices: list[Embeddings], hours: float, seed: int = 0) -> SpeakerWindows:
    """Returns windows of a conversation without a pause.

    Each is a mean of two windows of a voice, drawn at random, with noise: no two are equal.
    """
    rng = np.random.default_rng(seed)
    wanted = round(hours * 3_600_000 / STEP_MS)
    drawn: list[Embeddings] = []
    num_drawn, last = 0, -1
    while num_drawn < wanted:
        speaker = int(rng.choice([index for index in range(len(voices)) if index != last]))
        length = int(rng.integers(*_TURN_WINDOWS))
        one, other = rng.choice(voices[speaker], (2, length))
        drawn.append((one + other) / np.linalg.norm(one + other, axis=1, keepdims=True))
        num_drawn, last = num_drawn + length, speaker
    embeddings = np.concatenate(drawn)[:wanted]
    scale = np.float32(_NOISE / np.sqrt(embeddings.shape[1]))
    embeddings += scale * rng.standard_normal(embeddings.shape, np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    starts_ms = np.arange(wanted, dtype=np.int64) * STEP_MS
    return SpeakerWindows(starts_ms, starts_ms + WINDOW_MS, embeddings)


def main(system: str, voices_path: str, hours: str) -> None:
    """Sends wall s, CPU s, bytes by which the process grew, windows and speakers."""
    with np.load(Path(voices_path)) as kept:
        voices = [kept[name] for name in kept.files]
    turns_by(system, long_conversation(voices, 0.05))  # loads libraries
    windows = long_conversation(voices, float(hours))
    forget_peak()
    before = memory()
    with Meter() as meter:
        turns = turns_by(system, windows)
    grown = memory().peak_bytes - before.resident_bytes
    send([meter.cost.wall_s, meter.cost.cpu_s, grown, len(windows), num_speakers(turns)])


if __name__ == "__main__":
    main(*sys.argv[1:])
