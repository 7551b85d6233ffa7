"""Voices: made-up embeddings of conversations, and a speaker embedder with two voices.

The made-up embeddings have cosines as CAM++'s: of two windows of one speaker 0.6, of two
speakers' means 0.3, and mixtures where the speaker changes inside of a window.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serve_app.core.records import SAMPLES_PER_MS, Chunk, Pcm
from serve_app.core.speakers import (
    Diarization,
    Embeddings,
    SpeakerTurn,
    SpeakerWindows,
    speaker_windows,
)

NUM_VALUES = 192
WITHIN = 0.6
BETWEEN = 0.3


def made_up_voices(num_speakers: int, seed: int = 0, likeness: float = BETWEEN) -> np.ndarray:
    """Returns a unit vector per speaker, shape [speakers, values]."""
    rng = np.random.default_rng([seed, 11])
    shared, *own = rng.normal(size=(num_speakers + 1, NUM_VALUES)) / np.sqrt(NUM_VALUES)
    voices = np.sqrt(likeness) * shared + np.sqrt(1 - likeness) * np.array(own)
    return np.asarray(voices / np.linalg.norm(voices, axis=1, keepdims=True))


def made_up_windows(
    turns: Sequence[SpeakerTurn], voices: np.ndarray, seed: int = 0, max_gap_ms: int = 800
) -> SpeakerWindows:
    """Returns the windows of turns, as of a VAD that closes gaps of up to `max_gap_ms`."""
    rng = np.random.default_rng([seed, 12])
    spans = [span for piece in _pieces(turns, max_gap_ms) for span in _windows(*piece)]
    starts_ms, ends_ms = (np.array(times, np.int64) for times in zip(*spans, strict=True))
    shares = np.zeros((len(spans), len(voices)))
    for turn in turns:
        shared = np.minimum(ends_ms, turn.end_ms) - np.maximum(starts_ms, turn.start_ms)
        shares[:, turn.speaker] += np.maximum(0, shared)
    shares /= np.maximum(1, shares.sum(axis=1, keepdims=True))
    noise = rng.normal(size=(len(spans), NUM_VALUES)) / np.sqrt(NUM_VALUES)
    mixed = np.sqrt(WITHIN) * shares @ voices + np.sqrt(1 - WITHIN) * noise
    unit = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    return SpeakerWindows(starts_ms, ends_ms, unit.astype(np.float32))


def talk(
    num_speakers: int, duration_s: float, seed: int = 0, turn_s: float = 8.0
) -> tuple[SpeakerTurn, ...]:
    """Returns turns of speakers who speak about equally long, with pauses of 0.2 s."""
    rng = np.random.default_rng([seed, 13])
    turns: list[SpeakerTurn] = []
    at_ms = 0
    while at_ms < duration_s * 1000:
        number = len(turns)
        # Everybody speaks in the first rounds, so that all have about the same share.
        speaker = number % num_speakers
        length_ms = int(rng.uniform(0.4, 1.6) * turn_s * 1000)
        turns.append(SpeakerTurn(at_ms, at_ms + length_ms, speaker))
        at_ms += length_ms + 200
    return tuple(turns)


def _pieces(turns: Sequence[SpeakerTurn], max_gap_ms: int) -> list[tuple[int, int]]:
    pieces: list[tuple[int, int]] = []
    for turn in turns:
        if pieces and turn.start_ms - pieces[-1][1] <= max_gap_ms:
            pieces[-1] = (pieces[-1][0], turn.end_ms)
        else:
            pieces.append((turn.start_ms, turn.end_ms))
    return pieces


def _windows(start_ms: int, end_ms: int) -> list[tuple[int, int]]:
    return [
        (start_ms + first // SAMPLES_PER_MS, start_ms + last // SAMPLES_PER_MS)
        for first, last in speaker_windows((end_ms - start_ms) * SAMPLES_PER_MS)
    ]


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
