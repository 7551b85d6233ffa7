"""The records that travel between the stages, all plain data.

All audio inside Paraserve is 16 kHz mono int16. Times are milliseconds; those
of a `Recognition` count from the start of its chunk, those of an `Utterance`
from the start of the recording.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from serve_app.core.hints import NO_HINTS, Hints
from serve_app.core.origin import Origin
from serve_app.core.speech_detection import AS_DEPLOYED, SpeechDetection
from serve_app.core.timing import RequestCost

SAMPLE_RATE_HZ = 16_000
SAMPLES_PER_MS = SAMPLE_RATE_HZ // 1000

Pcm: TypeAlias = npt.NDArray[np.int16]
"""Samples, shape [n], 16 kHz mono."""

FileBytes: TypeAlias = npt.NDArray[np.uint8]
"""A file as it was uploaded, shape [bytes]."""


@dataclass(frozen=True, slots=True)
class SegmentationJob:
    """A file and how it is to be cut.

    Attributes:
        origin: the request that it belongs to.
        audio: the file.
        use_vad: find the speech with the VAD, or cut everything.
        hints: for the recogniser.
        speech_detection: for the VAD.
    """

    origin: Origin
    audio: FileBytes
    use_vad: bool
    hints: Hints = NO_HINTS
    speech_detection: SpeechDetection = AS_DEPLOYED


@dataclass(frozen=True, slots=True)
class SpeechSegment:
    """A span in which the VAD heard speech, in ms from the recording's start."""

    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """One utterance on its way to the recogniser.

    Attributes:
        origin: the request that it belongs to.
        index: position among the chunks of its request, from 0.
        start_ms: where the chunk starts in the recording.
        pcm: its samples.
        hints: of its request.
    """

    origin: Origin
    index: int
    start_ms: int
    pcm: Pcm
    hints: Hints = NO_HINTS

    @property
    def num_samples(self) -> int:
        return int(self.pcm.shape[0])

    @property
    def duration_s(self) -> float:
        return self.num_samples / SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True)
class Token:
    """A recognised unit as a reader sees it: one CJK character or one Latin word.

    `model` names the pack that heard it, where a recogniser has several.
    """

    text: str
    start_ms: int
    end_ms: int
    confidence: float
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Recognition:
    """What was heard in one chunk; no tokens is a valid result.

    Attributes:
        tokens: in order.
        model: name of the pack that heard them, where a recogniser has several.
        language: code of what it was heard as, where the recogniser can tell.
    """

    tokens: tuple[Token, ...]
    model: str | None = None
    language: str | None = None


@dataclass(frozen=True, slots=True)
class ChunkFailure:
    """Why one chunk has no result; its neighbours are not concerned."""

    code: str
    message: str


UtteranceStatus = Literal["done", "empty", "failed"]


@dataclass(frozen=True, slots=True)
class Utterance:
    """The fate of one chunk, placed in the recording; `language` as of `Recognition`."""

    index: int
    start_ms: int
    end_ms: int
    status: UtteranceStatus
    tokens: tuple[Token, ...] = ()
    error: str | None = None
    language: str | None = None

    @property
    def span(self) -> UtteranceSpan:
        return UtteranceSpan(self.start_ms, self.end_ms, self.status, self.language)


@dataclass(frozen=True, slots=True)
class UtteranceSpan:
    """Where an utterance was and what became of it, without its words."""

    start_ms: int
    end_ms: int
    status: UtteranceStatus
    language: str | None = None


@dataclass(frozen=True, slots=True)
class DamagedRange:
    """A span of a recording that could not be decoded; silence stands in its place.

    `why` is a clause in plain English.
    """

    start_ms: int
    end_ms: int
    why: str


@dataclass(frozen=True, slots=True)
class RecordingEnd:
    """Comes after the last utterance.

    Attributes:
        duration_ms: length of the recording.
        utterances: the spans of all its utterances, in order.
        cost: of the request so far; equal ends may have cost differently.
        damage: what could not be decoded, in order of time.
        notices: what else a caller should know of the file, in plain English.
    """

    duration_ms: int
    utterances: tuple[UtteranceSpan, ...] = ()
    cost: RequestCost = field(default_factory=RequestCost, compare=False)
    damage: tuple[DamagedRange, ...] = ()
    notices: tuple[str, ...] = ()
