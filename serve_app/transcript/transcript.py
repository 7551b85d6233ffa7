"""The transcript of a recording: sentences, failed ranges and notices."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from serve_app.core.records import DamagedRange, RecordingEnd, Token, UtteranceSummary
from serve_app.core.speakers import Diarization
from serve_app.core.words import join_words, needs_space


@dataclass(frozen=True, slots=True)
class MarkedToken:
    """A token and the punctuation mark that follows it ("" for none)."""

    token: Token
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Sentence:
    """The tokens of a sentence; times in ms from the recording's start.

    Without punctuation, each utterance is a sentence.

    Attributes:
        speaker: label of who speaks it; None without speaker labels.
        channel: of the recording that it is spoken on, from 0; None where the channels were
            mixed.
    """

    tokens: tuple[MarkedToken, ...]
    speaker: str | None = None
    channel: int | None = None

    @property
    def start_ms(self) -> int:
        return self.tokens[0].token.start_ms

    @property
    def end_ms(self) -> int:
        return self.tokens[-1].token.end_ms

    @property
    def text(self) -> str:
        return join_words(_words_and_marks(self.tokens))

    @property
    def confidence(self) -> float:
        return sum(marked.token.confidence for marked in self.tokens) / len(self.tokens)


@dataclass(frozen=True, slots=True)
class FailedRange:
    """A range of the recording that has no text because of an error.

    `reason` distinguishes damage in the file from a failure of the recognizer. `channel` is as
    in `Sentence`; damage concerns all channels.
    """

    start_ms: int
    end_ms: int
    error: str
    reason: Literal["recognition_failed", "damaged"] = "recognition_failed"
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """The complete result for one recording.

    Attributes:
        duration_ms: length of the recording.
        sentences: in order of time.
        failures: ranges without text; with any, the transcript is partial.
        utterances: where speech was detected, with or without words.
        notices: about the file, in plain English.
        diarization: who spoke when; None where that is not asked for or could not be found.
        num_channels: channels that were recognized, each for itself; 1 for their mix.
    """

    duration_ms: int
    sentences: tuple[Sentence, ...]
    failures: tuple[FailedRange, ...] = ()
    utterances: tuple[UtteranceSummary, ...] = ()
    notices: tuple[str, ...] = ()
    diarization: Diarization | None = None
    num_channels: int = 1

    @property
    def partial(self) -> bool:
        return bool(self.failures)

    @property
    def text(self) -> str:
        text = ""
        before: Sentence | None = None
        for sentence in self.sentences:
            text += separator(text, before, sentence) + sentence.text
            before = sentence
        return text

    @property
    def language(self) -> str | None:
        """The language of most of the speech with words; None if unknown."""
        return next(iter(languages_of(self.utterances)), None)

    def words(self) -> Iterator[Token]:
        for sentence in self.sentences:
            for marked in sentence.tokens:
                yield marked.token


TranscriptEvent: TypeAlias = Sentence | FailedRange | RecordingEnd
"""The output of the pipeline, in order of time; `RecordingEnd` is last."""


async def collect(events: AsyncIterator[TranscriptEvent]) -> Transcript:
    """Reads all events of a recording into one transcript."""
    sentences: list[Sentence] = []
    failures: list[FailedRange] = []
    end = RecordingEnd(0)
    async for event in events:
        if isinstance(event, Sentence):
            sentences.append(event)
        elif isinstance(event, FailedRange):
            failures.append(event)
        else:
            end = event
    failures = sorted([*failures, *damaged_ranges(end)], key=lambda failed: failed.start_ms)
    return Transcript(
        end.duration_ms,
        tuple(sentences),
        tuple(failures),
        end.utterances,
        end.notices,
        end.diarization,
        num_channels=end.num_channels,
    )


def separator(text: str, before: Sentence | None, sentence: Sentence) -> str:
    """Returns what stands between a text and the sentence that follows it.

    Args:
        text: so far.
        before: the last sentence in it; None without one.
        sentence: the next one; on another channel it begins a new line.
    """
    if before is not None and before.channel != sentence.channel:
        return "\n"
    return " " if needs_space(text, sentence.text) else ""


def languages_of(utterances: Iterable[UtteranceSummary]) -> list[str]:
    """Returns the languages of utterances with words, the one with most speech first."""
    heard_ms: dict[str, int] = {}
    for span in utterances:
        if span.status == "done" and span.language is not None:
            duration_ms = span.end_ms - span.start_ms
            heard_ms[span.language] = heard_ms.get(span.language, 0) + duration_ms
    return sorted(heard_ms, key=heard_ms.__getitem__, reverse=True)


def damaged_ranges(end: RecordingEnd) -> list[FailedRange]:
    """Returns the ranges of a recording that could not be decoded."""
    return [_damaged(one) for one in end.damage]


def _damaged(damage: DamagedRange) -> FailedRange:
    return FailedRange(
        damage.start_ms, damage.end_ms, f"damaged_audio: {damage.why}", reason="damaged"
    )


def _words_and_marks(tokens: Iterable[MarkedToken]) -> Iterator[str]:
    for marked in tokens:
        yield marked.token.text + marked.mark
