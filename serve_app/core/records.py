"""The plain records that travel between the stages.

All audio inside Paraserve is 16 kHz mono int16. Times are milliseconds; those of a
`Recognition` count from the start of its chunk, those of an `Utterance` from the start of the
recording.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Hotword:
    """A word that the recognizer should prefer.

    Attributes:
        text: the word.
        weight: how strongly, 1.0 for as the model was trained.
    """

    text: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class RecognitionOptions:
    """What a request tells the recognizer beside the audio.

    Attributes:
        model: name of the pack that is to hear it; None for the deployment's first.
        hotwords: words that a model with a bias encoder prefers.
        keywords: texts that make a draft worth refining wherever it contains one; the field
            `refine_keywords`.
        language: code of what is spoken, as `zh`, or `auto` to have it guessed; None for what
            the deployment takes it for.
            Whisper heeds it, Paraformer has no use for it.
    """

    model: str | None = None
    hotwords: tuple[Hotword, ...] = ()
    keywords: tuple[str, ...] = ()
    language: str | None = None


NO_OPTIONS = RecognitionOptions()


@dataclass(frozen=True, slots=True)
class HotwordCheck:
    """What a model makes of a request's hotwords.

    Attributes:
        no_use: why it has no use for any; None if it has.
        unwritable: those that its vocabulary cannot write, so that they can never be heard.
    """

    no_use: str | None = None
    unwritable: tuple[str, ...] = ()


ALL_HEEDED = HotwordCheck()


ANONYMOUS = "anonymous"
"""Name of the key of callers who need none."""


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Travels with every piece of a request's work, from the ingress to the models.

    Attributes:
        request_id: names the request in all logs.
        key: name of the caller's API key, never the key itself.
        deadline: Unix time in s after which the result is worthless, or None.
        weight: the key's share of a busy model, relative to other keys.
        traceparent: W3C trace context of the request's span, None when it is not traced.
        background: nobody waits for it: it has its turn only where nothing else wants one.
    """

    request_id: str
    key: str = ANONYMOUS
    deadline: float | None = None
    weight: float = 1.0
    traceparent: str | None = None
    background: bool = False

    def expired(self, unix_s: float) -> bool:
        return self.deadline is not None and unix_s >= self.deadline


@dataclass(frozen=True, slots=True)
class SpeechDetection:
    """How the speech of one recording is to be found; None for as the deployment does it.

    Attributes:
        silence_duration_ms: silence that ends a segment.
        prefix_padding_ms: audio that a segment has before the speech that was noticed.
        threshold: from 0 to 1, how certain speech must be; 0.5 is the deployment's own,
            higher hears less.
    """

    silence_duration_ms: int | None = None
    prefix_padding_ms: int | None = None
    threshold: float | None = None


AS_DEPLOYED = SpeechDetection()


Stage: TypeAlias = Literal["vad", "asr", "punctuation"]

STAGES: tuple[Stage, ...] = ("vad", "asr", "punctuation")
"""All of them, in the order in which audio passes through."""

PackRole: TypeAlias = Stage | Literal["draft"]
"""What a pack is for: a stage, or the drafts of a recognizer with two models."""


@dataclass(frozen=True, slots=True)
class StageReadiness:
    """A stage whose model is loaded and warm.

    Attributes:
        stage: what it does.
        device: where it computes.
        pack: name of its model pack.
        checksum: SHA-256 of the pack's weights.
        output_settings: what its results depend on beside them: names of settings with their
            values, and of further packs with their checksums.
    """

    stage: Stage
    device: str
    pack: str
    checksum: str
    output_settings: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class RequestCost:
    """Gathered while a request goes through the stages.

    The times of chunks that are worked on side by side add up, so that a stage's may be
    longer than the request took.

    Attributes:
        decode_s: decoding and cutting.
        recognize_s: calls to the recognizer, their wait for a batch included.
        punctuate_s: calls to the punctuator, their wait for a batch included.
        num_retries: calls that had to be made again.
    """

    decode_s: float = 0.0
    recognize_s: float = 0.0
    punctuate_s: float = 0.0
    num_retries: int = 0

    def add(self, other: RequestCost) -> None:
        self.decode_s += other.decode_s
        self.recognize_s += other.recognize_s
        self.punctuate_s += other.punctuate_s
        self.num_retries += other.num_retries

    @contextmanager
    def recognizing(self) -> Generator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.recognize_s += time.monotonic() - began

    @contextmanager
    def punctuating(self) -> Generator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.punctuate_s += time.monotonic() - began


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
        context: the request that it belongs to.
        audio: the file.
        use_vad: find the speech with the VAD, or cut everything.
        recognition_options: for the recognizer.
        speech_detection: for the VAD.
    """

    context: RequestContext
    audio: FileBytes
    use_vad: bool
    recognition_options: RecognitionOptions = NO_OPTIONS
    speech_detection: SpeechDetection = AS_DEPLOYED


@dataclass(frozen=True, slots=True)
class SpeechSegment:
    """A span in which the VAD heard speech, in ms from the recording's start."""

    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """One utterance on its way to the recognizer.

    Attributes:
        context: the request that it belongs to.
        index: position among the chunks of its request, from 0.
        start_ms: where the chunk starts in the recording.
        pcm: its samples.
        recognition_options: of its request.
    """

    context: RequestContext
    index: int
    start_ms: int
    pcm: Pcm
    recognition_options: RecognitionOptions = NO_OPTIONS

    @property
    def num_samples(self) -> int:
        return int(self.pcm.shape[0])

    @property
    def duration_s(self) -> float:
        return self.num_samples / SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True)
class Token:
    """A recognized unit as a reader sees it: one CJK character or one Latin word.

    `model` names the pack that heard it, where a recognizer has several.
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
        model: name of the pack that heard them, where a recognizer has several.
        language: code of what it was heard as, where the recognizer can tell.
    """

    tokens: tuple[Token, ...]
    model: str | None = None
    language: str | None = None


@dataclass(frozen=True, slots=True)
class ChunkFailure:
    """Why one chunk has no result; its neighbors are not concerned."""

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
