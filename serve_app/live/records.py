"""What a live session takes and tells. Times are ms from the start of the session's audio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from serve_app.core.records import AS_DEPLOYED, NO_OPTIONS, RecognitionOptions, SpeechDetection
from serve_app.transcript.itn import AS_SAID, TextRules
from serve_app.transcript.transcript import Sentence

Encoding: TypeAlias = Literal["pcm16", "mulaw", "alaw"]
"""Little-endian 16-bit PCM, or G.711, one channel."""


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """How the bytes of a session are to be read.

    Attributes:
        encoding: of the samples.
        rate_hz: from 8000 to 48000.
    """

    encoding: Encoding = "pcm16"
    rate_hz: int = 24_000


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What the caller chose; may change between two segments.

    Attributes:
        recognition_options: model, hotwords, language.
        detection: of speech; None where the caller says where segments end (`commit`).
        punctuate: whether texts have punctuation.
        text_rules: numbers and replacements of final texts. With any, a segment has no partial
            text: what was told could change.
        partials: whether texts of the open segment are told.
    """

    recognition_options: RecognitionOptions = NO_OPTIONS
    detection: SpeechDetection | None = AS_DEPLOYED
    punctuate: bool = True
    text_rules: TextRules = AS_SAID
    partials: bool = True


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Speech was detected; a segment is open.

    Attributes:
        segment: number of the segment, from 0.
        start_ms: where it begins, padding included.
    """

    segment: int
    start_ms: int


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The segment ends here; its text follows as `FinalText` or `SegmentFailed`."""

    segment: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class PartialText:
    """More of the open segment's text, which is never taken back.

    All deltas of a segment, the last of which comes with its end, make its final text.
    """

    segment: int
    delta: str


@dataclass(frozen=True, slots=True)
class FinalText:
    """The text of a segment that has ended.

    Attributes:
        segment: its number.
        start_ms, end_ms: of the segment.
        sentences: with words, times and marks; their texts joined are `text`.
        text: exactly the deltas of the segment, joined; empty where no words were recognized.
        language: code of the detected language, if the recognizer reports one.
    """

    segment: int
    start_ms: int
    end_ms: int
    sentences: tuple[Sentence, ...]
    text: str
    language: str | None = None


@dataclass(frozen=True, slots=True)
class SegmentFailed:
    """A segment has no text; the session goes on.

    Attributes:
        segment: its number.
        start_ms, end_ms: of the segment.
        code: of the API's errors.
        message: in plain English.
    """

    segment: int
    start_ms: int
    end_ms: int
    code: str
    message: str


LiveEvent: TypeAlias = SpeechStarted | SpeechStopped | PartialText | FinalText | SegmentFailed
"""In order: started, partials, stopped, final or failed; a segment's final may come after the
next one's start, finals are in order of the segments."""


@dataclass(frozen=True, slots=True)
class SessionStatistics:
    """A session at one moment.

    Attributes:
        received_ms: audio that has arrived.
        decided_ms: audio up to which the VAD has decided.
        finished_ms: audio up to which texts are final, or there was no speech.
        waiting_ms: audio that has arrived and not been decided, or is of ended segments without
            a text.
        is_speaking: whether a segment is open.
        num_segments: that have ended.
        num_partials: decodes of open segments.
        num_thinned: decodes that were left out because earlier ones had not come back.
        num_failed_partials: decodes of open segments that failed; the next one makes up for it.
        num_failed_segments: segments that have no text.
        num_retractions: words that were told and are not in the final text; 0 by construction.
        first_partial_s: from when the start of a segment had arrived to its first delta, of the
            last one that has any.
        final_s: from when the audio had arrived that ended a segment, with the silence that the
            VAD waits for, to its final text, of the last one.
    """

    received_ms: int = 0
    decided_ms: int = 0
    finished_ms: int = 0
    waiting_ms: int = 0
    is_speaking: bool = False
    num_segments: int = 0
    num_partials: int = 0
    num_thinned: int = 0
    num_failed_partials: int = 0
    num_failed_segments: int = 0
    num_retractions: int = 0
    first_partial_s: float | None = None
    final_s: float | None = None
