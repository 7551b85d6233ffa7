"""A speaker embedder that tells voices by their mean level, and a matching diarizer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serve_app.core.pcm import SAMPLES_PER_MS, Pcm
from serve_app.core.records import Chunk
from serve_app.core.speakers import (
    Diarization,
    Embeddings,
    SpeakerTurn,
    SpeakerWindows,
    speaker_windows,
)

LOUD = 1000
"""Samples that are louder are another voice."""


class FakeSpeakerEmbedder:
    """An engine with two voices: the quiet one is [1, 0], the loud one [0, 1]."""

    max_in_flight = 1
    is_reentrant = False

    def embed(self, batch: Sequence[Pcm]) -> list[Embeddings]:
        return [
            np.array(
                [
                    (0, 1) if np.abs(pcm[start:end].astype(int)).mean() > LOUD else (1, 0)
                    for start, end in speaker_windows(len(pcm))
                ],
                np.float32,
            ).reshape(-1, 2)
            for pcm in batch
        ]

    def cost(self, num_samples: int) -> int:
        return len(speaker_windows(num_samples))


def windows_of(chunk: Chunk) -> SpeakerWindows:
    """Returns the windows of a chunk as the deployment would."""
    windows = np.array(speaker_windows(chunk.num_samples), np.int64).reshape(-1, 2)
    times_ms = chunk.start_ms + windows // SAMPLES_PER_MS
    (embeddings,) = FakeSpeakerEmbedder().embed([chunk.pcm])
    return SpeakerWindows(times_ms[:, 0], times_ms[:, 1], embeddings)


def diarization_of(windows: SpeakerWindows) -> Diarization:
    """Returns a turn for each run of windows with the same voice."""
    turns: list[SpeakerTurn] = []
    voices = list(dict.fromkeys(map(tuple, windows.embeddings.tolist())))
    for number, embedding in enumerate(map(tuple, windows.embeddings.tolist())):
        start_ms, end_ms = int(windows.start_ms[number]), int(windows.end_ms[number])
        speaker = voices.index(embedding)
        if turns and turns[-1].speaker == speaker:
            turns[-1] = SpeakerTurn(turns[-1].start_ms, end_ms, speaker)
        else:
            turns.append(SpeakerTurn(start_ms, end_ms, speaker))
    return Diarization(tuple(turns), tuple("ABCDEFGH"[: len(voices)]))
