"""Renders a transcript, as the visitor edited it, as an SRT or VTT file."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from serve_app.core.records import Token
from serve_app.core.words import split_words
from serve_app.settings.subtitles import SubtitleSettings
from serve_app.transcript.subtitles import to_srt, to_vtt
from serve_app.transcript.transcript import MarkedToken, Sentence

_DAY_MS = 24 * 3600 * 1000
_MAX_WORD_CHARACTERS = 1000
_MAX_SENTENCE_CHARACTERS = 100_000
_MAX_SENTENCES = 100_000
_MAX_CHANNELS = 32
_MAX_NAME_CHARACTERS = 64

_TimeMs = Annotated[int, Field(ge=0, le=7 * _DAY_MS)]
_WordText = Annotated[str, Field(min_length=1, max_length=_MAX_WORD_CHARACTERS)]


def _printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError("must be one line")
    return name


_SpeakerName = Annotated[
    str, Field(min_length=1, max_length=_MAX_NAME_CHARACTERS), AfterValidator(_printable)
]


class _Sent(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class SentSentence(_Sent):
    """A sentence; its words may be unknown, and so may the name of its speaker."""

    start: _TimeMs
    end: _TimeMs
    text: Annotated[str, Field(max_length=_MAX_SENTENCE_CHARACTERS)]
    words: tuple[tuple[_WordText, _TimeMs, _TimeMs], ...] = ()
    speaker: _SpeakerName | None = None
    channel: Annotated[int | None, Field(ge=0, lt=_MAX_CHANNELS)] = None


class SubtitleOrder(_Sent):
    """What the page's script sends.

    Attributes:
        format: of the file.
        max_chars: in a line; None for the service's setting.
        duration_ms: of the recording, if it is known.
        sentences: in order of time.
    """

    format: Literal["srt", "vtt"]
    max_chars: Annotated[int | None, Field(ge=4, le=200)] = None
    duration_ms: _TimeMs | None = None
    sentences: Annotated[tuple[SentSentence, ...], Field(max_length=_MAX_SENTENCES)]


def render_subtitles(body: bytes, defaults: SubtitleSettings) -> str:
    """Returns the file.

    Args:
        body: a `SubtitleOrder` as JSON.
        defaults: how the service divides subtitles.

    Raises:
        ValueError: the body is something else.
    """
    order = SubtitleOrder.model_validate_json(body)
    changed = {} if order.max_chars is None else {"max_chars": order.max_chars}
    options = replace(defaults.model_copy(update=changed).options(), with_speakers=True)
    sentences = [sentence_of(sent) for sent in order.sentences if sent.text.strip()]
    write = to_srt if order.format == "srt" else to_vtt
    return write(sentences, options, order.duration_ms)


def sentence_of(sent: SentSentence) -> Sentence:
    """Returns a sentence whose words have times.

    Words without times share the sentence's time by the number of their letters.
    """
    end_ms = max(sent.start, sent.end)
    marked = _with_marks(sent) if sent.words else None
    if marked is None:
        words = split_words(sent.text)
        edges = [0, *accumulate(len(word) for word, _ in words)]
        times = [sent.start + round((end_ms - sent.start) * edge / edges[-1]) for edge in edges]
        marked = [
            MarkedToken(Token(word, start_ms, word_end_ms, 1.0), mark)
            for (word, mark), (start_ms, word_end_ms) in zip(words, pairwise(times), strict=True)
        ]
    return Sentence(tuple(marked), sent.speaker, sent.channel)


def _with_marks(sent: SentSentence) -> list[MarkedToken] | None:
    """Returns the words with the marks after them; None if they are not those of the text."""
    text, at = sent.text.strip(), 0
    found: list[tuple[str, int, int]] = []
    marks: list[str] = []
    for word, start_ms, end_ms in sent.words:
        first = text.find(word, at)
        between = text[at:first].strip()
        if first < 0 or any(character.isalnum() for character in between):
            return None
        if marks:
            marks[-1] = between
        elif between:
            word = between + word
        found.append((word, start_ms, max(start_ms, end_ms)))
        marks.append("")
        at = first + len(sent.words[len(found) - 1][0])
    rest = text[at:].strip()
    if any(character.isalnum() for character in rest):
        return None
    marks[-1] = rest
    return [
        MarkedToken(Token(word, start_ms, end_ms, 1.0), mark)
        for (word, start_ms, end_ms), mark in zip(found, marks, strict=True)
    ]
