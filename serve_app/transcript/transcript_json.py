"""A transcript as JSON and back, exactly: whatever is rendered from it stays the same.

Words are lists instead of objects: an hour of speech has some 20,000 of them.
"""

from __future__ import annotations

import json
from dataclasses import astuple
from typing import Any

from serve_app.core.records import Token, UtteranceSummary
from serve_app.core.speakers import Diarization, SpeakerTurn
from serve_app.transcript.transcript import FailedRange, MarkedToken, Sentence, Transcript

VERSION = 1
"""Grows when an older release could not read the content any more."""


def transcript_to_json(transcript: Transcript) -> bytes:
    """Returns a transcript as a JSON object, in ASCII."""
    content = {
        "version": VERSION,
        "duration_ms": transcript.duration_ms,
        "num_channels": transcript.num_channels,
        "sentences": [_sentence(sentence) for sentence in transcript.sentences],
        "failures": [astuple(failed) for failed in transcript.failures],
        "utterances": [astuple(span) for span in transcript.utterances],
        "notices": transcript.notices,
        "diarization": None
        if transcript.diarization is None
        else {
            "labels": transcript.diarization.labels,
            "turns": [astuple(turn) for turn in transcript.diarization.turns],
        },
    }
    return json.dumps(content, separators=(",", ":")).encode("ascii")


def transcript_from_json(content: bytes) -> Transcript:
    """Returns the transcript that `transcript_to_json` wrote.

    Raises:
        ValueError: the content is of a newer release, or no transcript.
    """
    stored: Any = json.loads(content)
    version = stored.get("version") if isinstance(stored, dict) else None
    if version != VERSION:
        raise ValueError(f"a transcript of version {version!r}; this release reads {VERSION}")
    try:
        return _transcript(stored)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a transcript: {error!r}") from None


def _transcript(stored: dict[str, Any]) -> Transcript:
    diarization = stored["diarization"]
    return Transcript(
        duration_ms=stored["duration_ms"],
        sentences=tuple(
            Sentence(
                tuple(MarkedToken(Token(*token), mark) for mark, *token in sentence["words"]),
                sentence["speaker"],
                sentence["channel"],
            )
            for sentence in stored["sentences"]
        ),
        failures=tuple(FailedRange(*failed) for failed in stored["failures"]),
        utterances=tuple(UtteranceSummary(*span) for span in stored["utterances"]),
        notices=tuple(stored["notices"]),
        diarization=None
        if diarization is None
        else Diarization(
            tuple(SpeakerTurn(*turn) for turn in diarization["turns"]),
            tuple(diarization["labels"]),
        ),
        num_channels=stored["num_channels"],
    )


def _sentence(sentence: Sentence) -> dict[str, Any]:
    return {
        "speaker": sentence.speaker,
        "channel": sentence.channel,
        "words": [(marked.mark, *_token(marked.token)) for marked in sentence.tokens],
    }


def _token(token: Token) -> tuple[Any, ...]:
    """Returns the fields of a token in order; the last one only if it is set."""
    fields = (token.text, token.start_ms, token.end_ms, token.confidence)
    return fields if token.model is None else (*fields, token.model)
