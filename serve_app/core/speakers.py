"""The plain records of speaker labels: embeddings of windows of speech, and who spoke when.

Times are milliseconds from the recording's start. An embedding is a unit vector; the cosine of
two is their dot product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from serve_app.core.pcm import SAMPLES_PER_MS, Pcm

Ranges: TypeAlias = npt.NDArray[np.int64]
"""Start and end of each range in ms, shape [ranges, 2]."""

Embeddings: TypeAlias = npt.NDArray[np.float32]
"""One row per window, shape [windows, values], each row of length 1."""

WINDOW_MS = 1_500
STEP_MS = 750
"""Speech that an embedding covers, and the step from one to the next.

Source: FunASR, `utils/speaker_utils.py` and CAM++'s pipeline.
"""


def no_ranges() -> Ranges:
    return np.empty((0, 2), np.int64)


def speaker_windows(num_samples: int) -> list[tuple[int, int]]:
    """Returns the windows of a piece of speech as ranges of its samples, in order.

    A window every 750 ms; the last one ends with the piece and is shorter only where the
    whole piece is.

    Args:
        num_samples: length of the piece at 16 kHz.
    """
    length, step = WINDOW_MS * SAMPLES_PER_MS, STEP_MS * SAMPLES_PER_MS
    if num_samples <= length:
        return [(0, num_samples)] if num_samples else []
    starts = list(range(0, num_samples - length, step))
    return [(start, start + length) for start in [*starts, num_samples - length]]


@dataclass(frozen=True, slots=True)
class KnownSpeaker:
    """A speaker whom the caller names by a recording of the voice.

    Attributes:
        name: the label that this speaker gets.
        pcm: 2 to 10 s of the voice.
    """

    name: str
    pcm: Pcm


@dataclass(frozen=True, slots=True)
class SpeakerOptions:
    """What a request tells about the speakers of its recording; None for unknown.

    Attributes:
        num_speakers: exactly that many; excludes the two bounds.
        min_speakers: at least that many.
        max_speakers: at most that many.
        known: speakers to recognize by their voices.
    """

    num_speakers: int | None = None
    min_speakers: int | None = None
    max_speakers: int | None = None
    known: tuple[KnownSpeaker, ...] = ()


ANY_NUMBER = "any"
"""Value of `--speakers` without a number."""

MAX_SPEAKERS = 32
"""Most speakers that a caller may name as the number."""


def parse_speaker_numbers(text: str) -> SpeakerOptions:
    """Returns the options for a number of speakers such as 2, or a range such as 2-4.

    Raises:
        ValueError: it is neither, or out of bounds; the message completes "NAME ...".
    """
    least, dash, most = text.strip().partition("-")
    numbers = [least, most] if dash else [least]
    if not all(number.isascii() and number.isdecimal() for number in numbers):
        raise ValueError(f"must be a number or a range such as 2-4, not {text[:64]!r}")
    bounds = [int(number[:4]) for number in numbers]
    if not 1 <= bounds[0] <= bounds[-1] <= MAX_SPEAKERS:
        raise ValueError(f"must be from 1 to {MAX_SPEAKERS}, and a range in order")
    if dash:
        return SpeakerOptions(min_speakers=bounds[0], max_speakers=bounds[1])
    return SpeakerOptions(num_speakers=bounds[0])


@dataclass(frozen=True, slots=True)
class SpeakerWindows:
    """Windows of speech with their embeddings, in order of time.

    Attributes:
        start_ms: shape [windows], int64.
        end_ms: shape [windows], int64.
        embeddings: one row per window.
        pauses_ms: where nobody speaks within the windows, in order of time.
    """

    start_ms: npt.NDArray[np.int64]
    end_ms: npt.NDArray[np.int64]
    embeddings: Embeddings
    pauses_ms: Ranges = field(default_factory=no_ranges)

    def __len__(self) -> int:
        return int(self.embeddings.shape[0])


def join_windows(parts: Sequence[SpeakerWindows]) -> SpeakerWindows:
    """Returns the windows of all parts, in order; there must be at least one part."""
    return SpeakerWindows(
        np.concatenate([part.start_ms for part in parts]),
        np.concatenate([part.end_ms for part in parts]),
        np.concatenate([part.embeddings for part in parts]),
        np.concatenate([part.pauses_ms for part in parts]),
    )


@dataclass(frozen=True, slots=True)
class SpeakerTurn:
    """A range of the recording in which one speaker speaks.

    Attributes:
        start_ms: start of the range.
        end_ms: end of the range.
        speaker: index of the speaker, from 0 in the order of their first turns.
        channel: that it is spoken on, where channels are recognized separately.
    """

    start_ms: int
    end_ms: int
    speaker: int
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class Diarization:
    """Who spoke when.

    Attributes:
        turns: in order of time, without overlaps within a channel.
        labels: of the speakers by their index: "A", "B" ..., or the names of known speakers.
    """

    turns: tuple[SpeakerTurn, ...] = ()
    labels: tuple[str, ...] = ()
