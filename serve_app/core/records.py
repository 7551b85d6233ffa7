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

from serve_app.core.pcm import SAMPLE_RATE_HZ as SAMPLE_RATE_HZ
from serve_app.core.pcm import SAMPLES_PER_MS as SAMPLES_PER_MS
from serve_app.core.pcm import Pcm as Pcm
from serve_app.core.speakers import Diarization, SpeakerWindows


@dataclass(frozen=True, slots=True)
class Hotword:
    """A word that the recognizer favors.

    Attributes:
        text: the word.
        weight: strength of the bias; 1.0 is that of the trained model.
    """

    text: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class RecognitionOptions:
    """What a request tells the recognizer beside the audio.

    Attributes:
        model: name of the model pack; None for the deployment's first.
        hotwords: words that a model with a bias encoder favors.
        keywords: texts that cause a draft that contains one to be refined; the field
            `refine_keywords`.
        language: code of the spoken language, such as `zh`, or `auto` to detect it; None for
            the deployment's default. Whisper uses it, Paraformer ignores it.
    """

    model: str | None = None
    hotwords: tuple[Hotword, ...] = ()
    keywords: tuple[str, ...] = ()
    language: str | None = None


NO_OPTIONS = RecognitionOptions()


@dataclass(frozen=True, slots=True)
class HotwordCheck:
    """Whether a model can use a request's hotwords.

    Attributes:
        no_use: why it cannot use any; None if it can.
        unwritable: those that its vocabulary cannot spell, so they are never recognized.
    """

    no_use: str | None = None
    unwritable: tuple[str, ...] = ()


ALL_HEEDED = HotwordCheck()


ANONYMOUS = "anonymous"
"""Key name of callers without an API key."""


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Identifies the request that work belongs to; travels with it through all stages.

    Attributes:
        request_id: identifies the request in all logs.
        key: name of the caller's API key, never the key itself.
        deadline: Unix time in s after which the result is useless, or None.
        weight: the key's share of a busy model, relative to other keys.
        traceparent: W3C trace context of the request's span, None when it is not traced.
        background: whether it runs only while no other work is queued.
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
    """Voice activity detection for one recording; None for the deployment's setting.

    Attributes:
        silence_duration_ms: silence that ends a segment.
        prefix_padding_ms: audio that a segment includes before the detected speech.
        threshold: speech probability needed, from 0 to 1; 0.5 is the deployment's own,
            a higher value detects less speech.
    """

    silence_duration_ms: int | None = None
    prefix_padding_ms: int | None = None
    threshold: float | None = None


AS_DEPLOYED = SpeechDetection()


Stage: TypeAlias = Literal["vad", "asr", "punctuation", "speakers"]

STAGES: tuple[Stage, ...] = ("vad", "asr", "punctuation", "speakers")
"""All stages, in processing order."""

PackRole: TypeAlias = Stage | Literal["draft"]
"""What a pack is used for: a stage, or the drafts of a two-model recognizer."""


@dataclass(frozen=True, slots=True)
class StageReadiness:
    """A stage whose model is loaded and warm.

    Attributes:
        stage: that the deployment runs.
        device: that it runs on.
        pack: name of its model pack.
        checksum: SHA-256 of the pack's weights.
        output_settings: what else its results depend on: settings with their values, and
            further packs with their checksums.
        dtype: of the matrix products; None where the pack mixes several.
    """

    stage: Stage
    device: str
    pack: str
    checksum: str
    output_settings: tuple[tuple[str, str], ...] = ()
    dtype: str | None = None


@dataclass(slots=True)
class RequestCost:
    """Time spent per stage while a request is processed.

    Times of chunks that run in parallel add up, so a stage's time may exceed the request's
    duration.

    Attributes:
        decode_s: decoding and segmentation.
        recognize_s: calls to the recognizer, including the wait for a batch.
        punctuate_s: calls to the punctuator, including the wait for a batch.
        embed_s: calls to the speaker embedder, including the wait for a batch and the clustering.
        num_retries: repeated calls.
    """

    decode_s: float = 0.0
    recognize_s: float = 0.0
    punctuate_s: float = 0.0
    embed_s: float = 0.0
    num_retries: int = 0

    def add(self, other: RequestCost) -> None:
        self.decode_s += other.decode_s
        self.recognize_s += other.recognize_s
        self.punctuate_s += other.punctuate_s
        self.embed_s += other.embed_s
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

    @contextmanager
    def embedding(self) -> Generator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.embed_s += time.monotonic() - began


FileBytes: TypeAlias = npt.NDArray[np.uint8]
"""An uploaded file, shape [bytes]."""


@dataclass(frozen=True, slots=True)
class SegmentationJob:
    """A file and how to segment it.

    Attributes:
        context: the request that it belongs to.
        audio: the file.
        use_vad: detect speech with the VAD; False to recognize everything.
        recognition_options: for the recognizer.
        speech_detection: for the VAD.
        speakers: make embeddings of the voices.
        separate_channels: recognize each channel for itself, instead of their mix.
        known: utterances of an earlier attempt at the same recording, in any order; their chunks
            are not recognized again.
    """

    context: RequestContext
    audio: FileBytes
    use_vad: bool
    recognition_options: RecognitionOptions = NO_OPTIONS
    speech_detection: SpeechDetection = AS_DEPLOYED
    speakers: bool = False
    separate_channels: bool = False
    known: tuple[Utterance, ...] = ()


@dataclass(frozen=True, slots=True)
class SpeechSegment:
    """Speech that the VAD detected, in ms from the recording's start."""

    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Audio of one utterance, to be recognized.

    Attributes:
        context: the request that it belongs to.
        index: position among the chunks of its request, from 0.
        start_ms: where the chunk starts in the recording.
        pcm: its samples.
        recognition_options: of its request.
        channel: of the recording that it is from, from 0; None where the channels were mixed.
        settled_ms: no later chunk of any channel starts before this; 0 where the channels
            were mixed, whose chunks are in order of time.
    """

    context: RequestContext
    index: int
    start_ms: int
    pcm: Pcm
    recognition_options: RecognitionOptions = NO_OPTIONS
    channel: int | None = None
    settled_ms: int = 0

    @property
    def num_samples(self) -> int:
        return int(self.pcm.shape[0])

    @property
    def duration_s(self) -> float:
        return self.num_samples / SAMPLE_RATE_HZ

    @property
    def end_ms(self) -> int:
        return self.start_ms + self.num_samples // SAMPLES_PER_MS


@dataclass(frozen=True, slots=True)
class Token:
    """One recognized CJK character or Latin word.

    `model` names the pack that recognized it, where a recognizer has several.
    """

    text: str
    start_ms: int
    end_ms: int
    confidence: float
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Recognition:
    """The result for one chunk; no tokens is a valid result.

    Attributes:
        tokens: in order.
        model: name of the pack that recognized them, where a recognizer has several.
        language: code of the detected language, if the recognizer reports one.
    """

    tokens: tuple[Token, ...]
    model: str | None = None
    language: str | None = None


@dataclass(frozen=True, slots=True)
class ChunkFailure:
    """Why one chunk has no result; other chunks are unaffected."""

    code: str
    message: str


UtteranceStatus = Literal["done", "empty", "failed"]


@dataclass(frozen=True, slots=True)
class Utterance:
    """The result of one chunk, in recording time.

    `language` is as in `Recognition`, `channel` and `settled_ms` are as in `Chunk`. `voices` are
    the windows of its speech, where speaker labels are asked for; None if there are none.
    """

    index: int
    start_ms: int
    end_ms: int
    status: UtteranceStatus
    tokens: tuple[Token, ...] = ()
    error: str | None = None
    language: str | None = None
    voices: SpeakerWindows | None = field(default=None, compare=False)
    channel: int | None = None
    settled_ms: int = 0

    @property
    def summary(self) -> UtteranceSummary:
        return UtteranceSummary(
            self.start_ms, self.end_ms, self.status, self.language, self.channel
        )


@dataclass(frozen=True, slots=True)
class UtteranceSummary:
    """Time and status of an utterance, without its words."""

    start_ms: int
    end_ms: int
    status: UtteranceStatus
    language: str | None = None
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class DamagedRange:
    """A range of a recording that could not be decoded and is replaced by silence.

    `why` is a clause.
    """

    start_ms: int
    end_ms: int
    why: str


@dataclass(frozen=True, slots=True)
class RecordingEnd:
    """Follows the last utterance.

    Attributes:
        duration_ms: length of the recording.
        utterances: summaries of all its utterances, in order.
        cost: of the request so far; not compared.
        damage: what could not be decoded, in order of time.
        notices: further remarks on the file, as sentences.
        diarization: who spoke when; None where that is not asked for or could not be found.
        num_channels: channels that were recognized, each for itself; 1 for their mix.
    """

    duration_ms: int
    utterances: tuple[UtteranceSummary, ...] = ()
    cost: RequestCost = field(default_factory=RequestCost, compare=False)
    damage: tuple[DamagedRange, ...] = ()
    notices: tuple[str, ...] = ()
    diarization: Diarization | None = None
    num_channels: int = 1
