"""The messages of FunASR's WebSocket protocol.

Source: FunASR, `runtime/docs/websocket_protocol.md`, and what its clients read: `timestamp` is
JSON text, `stamp_sents` is a list of clauses with their marks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, cast, get_args

from serve_app.api.errors import error_body
from serve_app.api.parameters import Offer, TranscriptionParameters, parse_parameters
from serve_app.api.realtime_session import MAX_RATE_HZ, MIN_RATE_HZ
from serve_app.core.errors import InvalidParameter, ParaserveError
from serve_app.core.live_errors import UnknownEvent
from serve_app.transcript.transcript import MarkedToken, Sentence, separator

Mode: TypeAlias = Literal["online", "offline", "2pass"]
Message: TypeAlias = dict[str, object]

MAX_MESSAGE_CHARS = 256 * 1024
_DEFAULT_NAME = "wav-default-id"
_MAX_NAME_CHARS = 512
_FORMATS = ("pcm", "wav", "s16le")


@dataclass(frozen=True, slots=True)
class Utterance:
    """What a client said of its audio.

    Attributes:
        parameters: of the transcription, checked.
        mode: which texts it wants.
        name: is sent back.
        rate_hz: of the samples.
        fields: as they were sent; those of later messages are added.
    """

    parameters: TranscriptionParameters
    mode: Mode = "2pass"
    name: str = _DEFAULT_NAME
    rate_hz: int = 16_000
    fields: Mapping[str, object] | None = None


def read_message(text: str) -> Mapping[str, object]:
    """Returns the fields of a message.

    Raises:
        UnknownEvent: it is not a JSON object, or too large.
    """
    if len(text) > MAX_MESSAGE_CHARS:
        raise UnknownEvent(f"a text message may have at most {MAX_MESSAGE_CHARS} characters")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise UnknownEvent("the message is not valid JSON") from None
    if not isinstance(fields, dict):
        raise UnknownEvent("a message must be a JSON object")
    return fields


def new_utterance(offer: Offer) -> Utterance:
    return Utterance(_parameters({}, offer), fields={})


def describe_utterance(
    utterance: Utterance, message: Mapping[str, object], offer: Offer
) -> Utterance:
    """Returns the utterance with the fields of a message; unknown ones have no effect.

    Raises:
        InvalidParameter: a field has a wrong type or value.
    """
    fields = {**(utterance.fields or {}), **message}
    mode = fields.get("mode", "2pass")
    if mode not in get_args(Mode):
        raise InvalidParameter("mode", f"must be one of {', '.join(get_args(Mode))}")
    name = fields.get("wav_name", _DEFAULT_NAME)
    if not isinstance(name, str) or len(name) > _MAX_NAME_CHARS:
        raise InvalidParameter("wav_name", f"must be a string of at most {_MAX_NAME_CHARS}")
    audio_format = fields.get("wav_format", "pcm")
    if not isinstance(audio_format, str) or audio_format.lower() not in _FORMATS:
        raise InvalidParameter(
            "wav_format", "must be pcm: 16-bit samples; other files go to /v1/audio/transcriptions"
        )
    rate_hz = fields.get("audio_fs", 16_000)
    if (
        isinstance(rate_hz, bool)
        or not isinstance(rate_hz, int)
        or not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ
    ):
        raise InvalidParameter(
            "audio_fs", f"must be a whole number from {MIN_RATE_HZ} to {MAX_RATE_HZ}"
        )
    return replace(
        utterance,
        parameters=_parameters(fields, offer),
        mode=cast(Mode, mode),
        name=name,
        rate_hz=rate_hz,
        fields=fields,
    )


def _parameters(fields: Mapping[str, object], offer: Offer) -> TranscriptionParameters:
    sent: dict[str, list[str]] = {"model": [offer.model]}
    hotwords = fields.get("hotwords")
    if isinstance(hotwords, dict | list):
        hotwords = json.dumps(hotwords)
    if not isinstance(hotwords, str | None):
        raise InvalidParameter("hotwords", "must be JSON text, or lines of a word and its weight")
    if hotwords:
        sent["hotwords"] = [hotwords]
    itn = fields.get("itn", True)
    if not isinstance(itn, bool):
        raise InvalidParameter("itn", "must be true or false")
    sent["itn"] = ["true" if itn else "false"]
    language = fields.get("svs_lang")
    if isinstance(language, str) and offer.guesses_language:
        sent["language"] = [language]
    return parse_parameters(sent, offer)


def text_message(utterance: Utterance, mode: str, text: str, *, is_final: bool = False) -> Message:
    return {"mode": mode, "wav_name": utterance.name, "text": text, "is_final": is_final}


def sentences_message(
    utterance: Utterance, mode: str, sentences: Sequence[Sentence], *, is_final: bool = False
) -> Message:
    """Returns a text with its times."""
    message = text_message(utterance, mode, _joined(sentences), is_final=is_final)
    words = [marked for sentence in sentences for marked in sentence.tokens]
    if words:
        message["timestamp"] = json.dumps(_times(words), separators=(",", ":"))
        message["stamp_sents"] = [_clause(clause) for clause in _clauses(words)]
    return message


def error_message(utterance: Utterance, error: ParaserveError, *, is_final: bool) -> Message:
    """Returns an error as a message that any client can read; FunASR has none of its own."""
    mode = utterance.mode if utterance.mode != "2pass" else "2pass-offline"
    message = text_message(utterance, mode, "", is_final=is_final)
    return message | {"error": error_body(error)["error"]}


def _joined(sentences: Sequence[Sentence]) -> str:
    text = ""
    before: Sentence | None = None
    for sentence in sentences:
        text += separator(text, before, sentence) + sentence.text
        before = sentence
    return text


def _times(words: Iterable[MarkedToken]) -> list[list[int]]:
    return [[word.token.start_ms, word.token.end_ms] for word in words]


def _clauses(words: Sequence[MarkedToken]) -> list[list[MarkedToken]]:
    """Divides words after each that has a mark."""
    clauses: list[list[MarkedToken]] = [[]]
    for word in words:
        clauses[-1].append(word)
        if word.mark:
            clauses.append([])
    return [clause for clause in clauses if clause]


def _clause(words: Sequence[MarkedToken]) -> dict[str, object]:
    return {
        "text_seg": " ".join(word.token.text for word in words),
        "punc": words[-1].mark,
        "start": words[0].token.start_ms,
        "end": words[-1].token.end_ms,
        "ts_list": _times(words),
    }
