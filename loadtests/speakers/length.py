"""Time and memory of the clustering of a long conversation, in a fresh process for each."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np

from loadtests.harness.child import Meter, send
from loadtests.speakers.systems import num_speakers, turns_by
from serve_app.core.speakers import STEP_MS, WINDOW_MS, SpeakerWindows

_TURN_WINDOWS = (3, 40)
_NOISE = 0.3
"""Length of what is added to an embedding that is drawn again, whose own length is 1."""


def long_conversation(voices: list[np.ndarray], hours: float, seed: int = 0) -> SpeakerWindows:
    """Returns windows of a conversation without a pause, drawn from embeddings of each voice."""
    rng = np.random.default_rng(seed)
    wanted = round(hours * 3_600_000 / STEP_MS)
    drawn: list[np.ndarray] = []
    last = -1
    while sum(map(len, drawn)) < wanted:
        speaker = int(rng.choice([index for index in range(len(voices)) if index != last]))
        drawn.append(rng.choice(voices[speaker], int(rng.integers(*_TURN_WINDOWS))))
        last = speaker
    embeddings = np.concatenate(drawn)[:wanted]
    noise = rng.normal(scale=_NOISE / np.sqrt(embeddings.shape[1]), size=embeddings.shape)
    noisy = (embeddings + noise).astype(np.float32)
    starts_ms = np.arange(wanted, dtype=np.int64) * STEP_MS
    unit = noisy / np.linalg.norm(noisy, axis=1, keepdims=True)
    return SpeakerWindows(starts_ms, starts_ms + WINDOW_MS, unit)


def main(system: str, voices_path: str, hours: str) -> None:
    """Sends wall s, CPU s, bytes by which the process grew, windows and speakers."""
    with np.load(Path(voices_path)) as kept:
        voices = [kept[name] for name in kept.files]
    turns_by(system, long_conversation(voices, 0.05))  # loads libraries
    windows = long_conversation(voices, float(hours))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Meter() as meter:
        turns = turns_by(system, windows)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    send([meter.cost.wall_s, meter.cost.cpu_s, grown, len(windows), num_speakers(turns)])


if __name__ == "__main__":
    main(*sys.argv[1:])
