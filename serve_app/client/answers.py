"""Responses of the service as records; times in seconds from the start of the recording."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from serve_app.client.errors import ServiceRefusal


@dataclass(frozen=True, slots=True)
class FailedSpan:
    """A part of the recording without text because of an error; `channel` is as in `Segment`."""

    start_s: float
    end_s: float
    error: str
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A sentence; `speaker` is its label, where labels were asked for.

    `channel` is the one that it is spoken on, from 0, where the channels are separate.
    """

    start_s: float
    end_s: float
    text: str
    speaker: str | None = None
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """A word; `confidence` from 0 to 1; `speaker` and `channel` as in `Segment`."""

    start_s: float
    end_s: float
    text: str
    confidence: float
    speaker: str | None = None
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class Transcription:
    """A whole transcript.

    Attributes:
        text: all of it.
        language: of most of the speech.
        languages: of the speech, the one with most of it first; none of a service that does not
            tell, or without words.
        duration_s: of the recording.
        segments: its sentences.
        words: its words, if they were asked for.
        failed: spans without text because of an error; any makes the transcript partial.
        warnings: what the service says of the recording or the request.
        body: the answer itself.
    """

    text: str
    language: str
    languages: tuple[str, ...]
    duration_s: float
    segments: tuple[Segment, ...]
    words: tuple[Word, ...]
    failed: tuple[FailedSpan, ...]
    warnings: tuple[str, ...]
    body: Mapping[str, Any]

    @property
    def partial(self) -> bool:
        return bool(self.failed)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A transcript in the format that was asked for.

    Attributes:
        text: the answer as it came.
        partial: whether parts of the recording have no text because of errors.
        warnings: what the service says of the recording, the request or its model.
    """

    text: str
    partial: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StreamSentence:
    """A piece of a transcript that is still being made; `text` continues the text so far.

    `words` are there if they were asked for; `channel` is as in `Segment`.
    """

    start_s: float
    end_s: float
    text: str
    words: tuple[Word, ...] = ()
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class StreamSegment:
    """A sentence of one speaker; all of them come right before the end."""

    start_s: float
    end_s: float
    text: str
    speaker: str
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """The end of a streamed transcript.

    Attributes:
        text: all of it.
        duration_s: of the recording.
        failed: as in `Transcription`.
        languages: as in `Transcription`.
    """

    text: str
    duration_s: float
    failed: tuple[FailedSpan, ...] = ()
    languages: tuple[str, ...] = ()


StreamEvent: TypeAlias = StreamSentence | StreamSegment | StreamEnd


@dataclass(frozen=True, slots=True)
class Served:
    """What a service offers.

    Attributes:
        models: names for the field `model`, the default first, without aliases.
        stages: that are deployed; None while the service is starting.
        hotword_models: those of the models that take hotwords.
        languages: values of `language`; none of a service that does not say.
        speaker_labels: whether it can label who speaks.
    """

    models: tuple[str, ...]
    stages: tuple[str, ...] | None
    hotword_models: frozenset[str]
    languages: tuple[str, ...] = ()
    speaker_labels: bool = False


def transcription_of(body: Mapping[str, Any]) -> Transcription:
    """Reads a body of `verbose_json`.

    Raises:
        KeyError, TypeError, ValueError: it is something else.
    """
    return Transcription(
        text=str(body["text"]),
        language=str(body.get("language", "")),
        languages=languages_of(body),
        duration_s=float(body["duration"]),
        segments=tuple(
            Segment(
                float(one["start"]),
                float(one["end"]),
                str(one["text"]),
                _speaker(one),
                _channel(one),
            )
            for one in body.get("segments") or ()
        ),
        words=words_of(body),
        failed=_failed(body.get("failed_ranges")),
        warnings=tuple(map(str, body.get("warnings") or ())),
        body=body,
    )


def rendered_of(text: str, headers: Mapping[str, str]) -> Rendered:
    """Reads an answer of any format, with what its headers say of it."""
    warning = headers.get("x-paraserve-warning")
    warnings = (*((warning,) if warning else ()), *_request_warnings(headers))
    return Rendered(text, "x-paraserve-partial" in headers, warnings)


def _request_warnings(headers: Mapping[str, str]) -> tuple[str, ...]:
    try:
        listed = json.loads(headers.get("x-paraserve-warnings", "[]"))
    except ValueError:
        return ()
    return tuple(map(str, listed)) if isinstance(listed, list) else ()


def event_of(body: Mapping[str, Any]) -> StreamEvent | None:
    """Reads a server-sent event; None for one that is not known.

    Raises:
        ServiceRefusal: it is an error.
        KeyError, TypeError, ValueError: it is nothing of the kind.
    """
    kind = str(body["type"])
    if kind == "transcript.text.delta":
        return StreamSentence(
            float(body.get("start", 0)),
            float(body.get("end", 0)),
            str(body["delta"]),
            words_of(body),
            _channel(body),
        )
    if kind == "transcript.text.segment":
        start_s, end_s = float(body["start"]), float(body["end"])
        text, speaker = str(body["text"]), str(body["speaker"])
        return StreamSegment(start_s, end_s, text, speaker, _channel(body))
    if kind == "transcript.text.done":
        return StreamEnd(
            str(body["text"]),
            float(body["duration"]),
            _failed(body.get("failed_ranges")),
            languages_of(body),
        )
    if kind == "error":
        error = body.get("error") or {}
        code, message = str(error.get("code", kind)), str(error.get("message", kind))
        raise ServiceRefusal(500, code, message)
    return None


def served_of(models: Iterable[Mapping[str, Any]], readiness: object) -> Served:
    """Reads the list of models and the answer of /readyz.

    Raises:
        KeyError, TypeError: the models are something else.
    """
    known = [model for model in models if model.get("root", model["id"]) == model["id"]]
    stages = readiness.get("stages") if isinstance(readiness, dict) else None
    return Served(
        tuple(str(model["id"]) for model in known),
        None if stages is None else tuple(map(str, stages)),
        frozenset(str(model["id"]) for model in known if model.get("hotwords")),
        tuple(map(str, known[0].get("languages") or ())) if known else (),
        bool(known and known[0].get("speaker_labels")),
    )


def words_of(body: Mapping[str, Any]) -> tuple[Word, ...]:
    """Reads the words of an answer or event, if it has any."""
    return tuple(
        Word(
            float(one["start"]),
            float(one["end"]),
            str(one["word"]),
            float(one.get("confidence", 1.0)),
            _speaker(one),
            _channel(one),
        )
        for one in body.get("words") or ()
    )


def _channel(body: Mapping[str, Any]) -> int | None:
    channel = body.get("channel")
    return None if channel is None else int(channel)


def _speaker(body: Mapping[str, Any]) -> str | None:
    speaker = body.get("speaker")
    return None if speaker is None else str(speaker)


def languages_of(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Reads the languages of an answer or event, if it has any."""
    return tuple(str(one["code"]) for one in body.get("languages") or ())


def _failed(ranges: Iterable[Mapping[str, Any]] | None) -> tuple[FailedSpan, ...]:
    return tuple(
        FailedSpan(float(one["start"]), float(one["end"]), str(one.get("error", "")), _channel(one))
        for one in ranges or ()
    )
