"""The configuration of a Realtime session, in both shapes in which clients send it.

Source: OpenAI's API reference, "Realtime": `session.update` with `session.audio.input`, and the
older `transcription_session.update` with flat fields; openai-python 3.57, `types/realtime` and
`types/beta/realtime`. A field that is not sent stays as it is; null resets it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from serve_app.api.fields import VAD_FIELDS
from serve_app.api.parameters import Offer, TranscriptionParameters, parse_parameters
from serve_app.core.errors import InvalidParameter
from serve_app.core.records import AS_DEPLOYED, SpeechDetection
from serve_app.live.records import AudioFormat, Encoding, SessionOptions
from serve_app.settings.problems import nearest_name

LOGPROBS = "item.input_audio_transcription.logprobs"
MIN_RATE_HZ, MAX_RATE_HZ = 8_000, 48_000
G711_RATE_HZ = 8_000

_INPUT = "session.audio.input"
_SERVER_VAD, _SEMANTIC_VAD = "server_vad", "semantic_vad"
_TEXTS = ("model", "language", "prompt")
_LISTS = ("languages", "keywords")
_EXTENSIONS = ("hotwords", "replacements", "itn")
_TRANSCRIPTION = (*_TEXTS, *_LISTS, *_EXTENSIONS, "delay")
_TURN_DETECTION = (
    *VAD_FIELDS,
    "create_response",
    "interrupt_response",
    "idle_timeout_ms",
    "eagerness",
)
_FLAT = {
    "input_audio_format": "format",
    "input_audio_transcription": "transcription",
    "input_audio_noise_reduction": "noise_reduction",
    "turn_detection": "turn_detection",
}
_ENCODINGS: Mapping[str, Encoding] = {
    "audio/pcm": "pcm16",
    "audio/pcmu": "mulaw",
    "audio/pcma": "alaw",
    "pcm16": "pcm16",
    "g711_ulaw": "mulaw",
    "g711_alaw": "alaw",
}
_MIME_TYPES: Mapping[Encoding, str] = {
    "pcm16": "audio/pcm",
    "mulaw": "audio/pcmu",
    "alaw": "audio/pcma",
}
_OLD_NAMES: Mapping[Encoding, str] = {"pcm16": "pcm16", "mulaw": "g711_ulaw", "alaw": "g711_alaw"}
# OpenAI's models that only live sessions have. They stand for the first model, as its others do
# where they are not taken from the aliases.
_LIVE_ONLY_MODELS = ("gpt-live-transcribe", "gpt-realtime-whisper")
_OPENAI_MODEL = "gpt-4o-transcribe"
_MAX_SHOWN_LETTERS = 64


@dataclass(frozen=True, slots=True)
class RealtimeSession:
    """The effective configuration of a session.

    Attributes:
        parameters: of the transcription, checked.
        audio: format of the input.
        transcription: as the client sent it.
        turn_detection: as the client sent it, as server_vad; None where it commits itself.
        with_logprobs: list the log-probability of each token.
    """

    parameters: TranscriptionParameters
    audio: AudioFormat = field(default_factory=AudioFormat)
    transcription: Mapping[str, object] = field(default_factory=dict)
    turn_detection: Mapping[str, object] | None = field(default_factory=dict)
    with_logprobs: bool = False

    @property
    def detects_turns(self) -> bool:
        """Whether segments end by themselves, at pauses."""
        return self.turn_detection is not None and "vad" in self.parameters.stages

    @property
    def options(self) -> SessionOptions:
        parameters = self.parameters
        return SessionOptions(
            recognition_options=parameters.recognition_options,
            detection=parameters.speech_detection if self.detects_turns else None,
            punctuate="punctuation" in parameters.stages,
            text_rules=parameters.text_rules,
        )


def new_session(offer: Offer, model: str | None = None) -> RealtimeSession:
    """Returns the configuration that a session begins with.

    Args:
        offer: of the service.
        model: name of the model; None for the default.

    Raises:
        ModelNotFound: it is not served here.
    """
    return _with_parts(offer, {} if model is None else {"model": model}, {}, None)


def update_session(
    session: RealtimeSession, update: object, offer: Offer, *, is_flat: bool
) -> RealtimeSession:
    """Returns the configuration with the fields that a client sent.

    Args:
        session: so far.
        update: the object that it sent.
        offer: of the service.
        is_flat: whether it is of the older shape.

    Raises:
        InvalidParameter: a field has a wrong type or value, or its name is misspelled.
        ModelNotFound: the model is not served here.
    """
    fields = _object("session", update)
    _check_kind(fields)
    is_flat = is_flat or ("audio" not in fields and any(name in fields for name in _FLAT))
    known = {"type", "include", "id", "object", "expires_at", "client_secret", "modalities"}
    _check_names("session", fields, known | (set(_FLAT) if is_flat else {"audio"}), offer)
    given = _flat_input(fields) if is_flat else _nested_input(fields, offer)
    transcription = dict(session.transcription)
    if "transcription" in given:
        sent = given["transcription"]
        transcription = {} if sent is None else transcription | _transcription(sent, offer)
    detection = session.turn_detection
    if "turn_detection" in given:
        detection = _turn_detection(given["turn_detection"], offer)
    if given.get("noise_reduction") is not None:
        _check_names(
            f"{_INPUT}.noise_reduction",
            _object(f"{_INPUT}.noise_reduction", given["noise_reduction"]),
            {"type", "strength"},
            offer,
        )
    updated = _with_parts(offer, transcription, detection, session)
    if given.get("format") is not None:
        updated = replace(updated, audio=_format(given["format"], is_flat=is_flat))
    if "include" in fields:
        updated = replace(updated, with_logprobs=_include(fields["include"]))
    return updated


@dataclass(frozen=True, slots=True)
class SessionIdentity:
    """What a session's description holds beside its configuration.

    Attributes:
        session_id: unique.
        expires_unix_s: when it ends at the latest.
        detection: values of the service for what the client leaves open.
    """

    session_id: str
    expires_unix_s: int
    detection: SpeechDetection = AS_DEPLOYED


def describe(session: RealtimeSession, identity: SessionIdentity) -> dict[str, object]:
    """Returns the whole configuration as `session.created` and `session.updated` have it."""
    encoding = session.audio.encoding
    audio_format: dict[str, object] = {"type": _MIME_TYPES[encoding]}
    if encoding == "pcm16":
        audio_format["rate"] = session.audio.rate_hz
    return {
        "type": "transcription",
        "object": "realtime.transcription_session",
        "id": identity.session_id,
        "expires_at": identity.expires_unix_s,
        "audio": {
            "input": {
                "format": audio_format,
                "transcription": _described_transcription(session),
                "turn_detection": _described_detection(session, identity),
                "noise_reduction": None,
            }
        },
        "include": _included(session),
    }


def describe_flat(session: RealtimeSession, identity: SessionIdentity) -> dict[str, object]:
    """Returns it in the older shape; `client_secret` is for sessions that are made over HTTP."""
    described = _described_transcription(session)
    return {
        "object": "realtime.transcription_session",
        "id": identity.session_id,
        "expires_at": identity.expires_unix_s,
        "modalities": ["text"],
        "input_audio_format": _OLD_NAMES[session.audio.encoding],
        "input_audio_transcription": {
            name: described[name] for name in _TEXTS if described.get(name) is not None
        },
        "turn_detection": _described_detection(session, identity),
        "input_audio_noise_reduction": None,
        "include": _included(session),
        "client_secret": None,
    }


def as_update(session: RealtimeSession) -> dict[str, object]:
    """Returns the update that makes this configuration of a new one."""
    encoding = session.audio.encoding
    rate = {"rate": session.audio.rate_hz} if encoding == "pcm16" else {}
    return {
        "audio": {
            "input": {
                "format": {"type": _MIME_TYPES[encoding], **rate},
                "transcription": dict(session.transcription),
                "turn_detection": session.turn_detection,
            }
        },
        "include": _included(session),
    }


def _with_parts(
    offer: Offer,
    transcription: Mapping[str, object],
    detection: Mapping[str, object] | None,
    session: RealtimeSession | None,
) -> RealtimeSession:
    """Returns a configuration whose parts were checked as the fields of a request are."""
    sent = {"model": [_model_of(transcription, offer)]}
    for name in ("language", "prompt"):
        if transcription.get(name):
            sent[name] = [str(transcription[name])]
    for name in _LISTS:
        values = transcription.get(name)
        if isinstance(values, list | tuple) and values:
            sent[name] = [str(value) for value in values]
    sent.update(_extensions(transcription))
    if detection:
        parts = {name: detection[name] for name in detection if name in VAD_FIELDS}
        sent["chunking_strategy"] = [json.dumps(parts)]
    try:
        parameters = parse_parameters(sent, offer)
    except InvalidParameter as error:
        raise InvalidParameter(_path_of(error.param), str(error.args[1])) from None
    if session is None:
        return RealtimeSession(
            parameters, transcription=dict(transcription), turn_detection=detection
        )
    return replace(
        session,
        parameters=parameters,
        transcription=dict(transcription),
        turn_detection=detection,
    )


def _model_of(transcription: Mapping[str, object], offer: Offer) -> str:
    name = str(transcription.get("model") or offer.model)
    if name in _LIVE_ONLY_MODELS and _OPENAI_MODEL in offer.model_aliases:
        return offer.model
    return name


def _extensions(transcription: Mapping[str, object]) -> dict[str, list[str]]:
    """Returns the fields that OpenAI does not have, as a form would send them."""
    sent: dict[str, list[str]] = {}
    hotwords, replacements = transcription.get("hotwords"), transcription.get("replacements")
    if hotwords:
        sent["hotwords"] = [hotwords if isinstance(hotwords, str) else json.dumps(hotwords)]
    if replacements:
        text = replacements if isinstance(replacements, str) else json.dumps(replacements)
        sent["replacements"] = [text]
    if transcription.get("itn") is not None:
        sent["itn"] = ["true" if transcription["itn"] else "false"]
    return sent


def _path_of(param: str) -> str:
    """Returns where the client sent what a request's field of this name stands for."""
    name, _, part = param.partition("[")
    if name == "chunking_strategy":
        return f"{_INPUT}.turn_detection" + (f".{part.rstrip(']')}" if part else "")
    return f"{_INPUT}.transcription.{name}"


def _check_kind(fields: Mapping[str, object]) -> None:
    kind = fields.get("type", "transcription")
    if kind == "realtime":
        raise InvalidParameter(
            "session.type",
            "is realtime: this service transcribes and has no voice agents; send transcription",
        )
    if kind != "transcription":
        raise InvalidParameter("session.type", "must be transcription")


def _nested_input(fields: Mapping[str, object], offer: Offer) -> Mapping[str, object]:
    if fields.get("audio") is None:
        return {}
    audio = _object("session.audio", fields["audio"])
    _check_names("session.audio", audio, {"input", "output"}, offer)
    if audio.get("output") is not None:
        raise InvalidParameter("session.audio.output", "is not served: sessions only transcribe")
    if audio.get("input") is None:
        return {}
    given = _object(_INPUT, audio["input"])
    _check_names(_INPUT, given, set(_FLAT.values()), offer)
    return given


def _flat_input(fields: Mapping[str, object]) -> Mapping[str, object]:
    return {name: fields[flat] for flat, name in _FLAT.items() if flat in fields}


def _transcription(sent: object, offer: Offer) -> dict[str, object]:
    path = f"{_INPUT}.transcription"
    given = _object(path, sent)
    _check_names(path, given, _TRANSCRIPTION, offer)
    for name in _TEXTS:
        if not isinstance(given.get(name), str | None):
            raise InvalidParameter(f"{path}.{name}", "must be a string")
    for name in _LISTS:
        values = given.get(name)
        if values is not None and not (
            isinstance(values, list) and all(isinstance(value, str) for value in values)
        ):
            raise InvalidParameter(f"{path}.{name}", "must be a list of strings")
    if not isinstance(given.get("hotwords"), str | list | dict | None):
        raise InvalidParameter(f"{path}.hotwords", "must be a string, a list or an object")
    if not isinstance(given.get("replacements"), str | dict | None):
        raise InvalidParameter(f"{path}.replacements", "must be a string or an object")
    if not isinstance(given.get("itn"), bool | None):
        raise InvalidParameter(f"{path}.itn", "must be true or false")
    return {name: given[name] for name in given if name in _TRANSCRIPTION}


def _turn_detection(sent: object, offer: Offer) -> Mapping[str, object] | None:
    if sent is None:
        return None
    path = f"{_INPUT}.turn_detection"
    given = _object(path, sent)
    _check_names(path, given, _TURN_DETECTION, offer)
    kind = given.get("type") or _SERVER_VAD
    if kind not in (_SERVER_VAD, _SEMANTIC_VAD, "none"):
        raise InvalidParameter(f"{path}.type", f"must be {_SERVER_VAD} or {_SEMANTIC_VAD}")
    if kind == "none":
        return None
    if kind == _SEMANTIC_VAD:
        # Nothing here judges the meaning; its pauses are found as for server_vad.
        return {}
    return {
        name: given[name] for name in VAD_FIELDS if name != "type" and given.get(name) is not None
    }


def _format(sent: object, *, is_flat: bool) -> AudioFormat:
    path = "session.input_audio_format" if is_flat else f"{_INPUT}.format"
    given = {"type": sent} if isinstance(sent, str) else _object(path, sent)
    name = given.get("type") or "audio/pcm"
    encoding = _ENCODINGS.get(name) if isinstance(name, str) else None
    if encoding is None:
        known = _OLD_NAMES if is_flat else _MIME_TYPES
        raise InvalidParameter(path, f"must be one of {', '.join(known.values())}")
    if encoding != "pcm16":
        return AudioFormat(encoding, G711_RATE_HZ)
    rate_hz = given.get("rate")
    if rate_hz is None:
        return AudioFormat()
    if (
        isinstance(rate_hz, bool)
        or not isinstance(rate_hz, int)
        or not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ
    ):
        raise InvalidParameter(
            f"{path}.rate", f"must be a whole number from {MIN_RATE_HZ} to {MAX_RATE_HZ}"
        )
    return AudioFormat(encoding, rate_hz)


def _include(sent: object) -> bool:
    if sent is None:
        return False
    values = sent if isinstance(sent, list) else [sent]
    if any(value != LOGPROBS for value in values):
        raise InvalidParameter("session.include", f"must be a list of {LOGPROBS}")
    return bool(values)


def _object(path: str, sent: object) -> Mapping[str, object]:
    if not isinstance(sent, dict):
        raise InvalidParameter(path, "must be an object")
    return sent


def _check_names(
    path: str, fields: Mapping[str, object], known: Iterable[str], offer: Offer
) -> None:
    """Refuses misspelled names, and unknown ones where the service does."""
    names = set(known)
    for name in fields:
        if name in names:
            continue
        shown = f"{path}.{name[:_MAX_SHOWN_LETTERS]}"
        meant = nearest_name(name, names - set(fields))
        if meant is not None:
            raise InvalidParameter(shown, f"is not a known field; did you mean {meant}?")
        if offer.unknown_fields == "refuse":
            raise InvalidParameter(shown, f"is not known; known fields: {', '.join(sorted(names))}")


def _described_transcription(session: RealtimeSession) -> dict[str, object]:
    sent = session.transcription
    described: dict[str, object] = {"model": sent.get("model") or session.parameters.model}
    language = sent.get("language") or session.parameters.language
    if language:
        described["language"] = language
    for name in (*_LISTS, *_EXTENSIONS):
        if sent.get(name):
            described[name] = sent[name]
    return described


def _described_detection(
    session: RealtimeSession, identity: SessionIdentity
) -> dict[str, object] | None:
    if not session.detects_turns:
        return None
    asked, own = session.parameters.speech_detection, identity.detection
    described: dict[str, object] = {"type": _SERVER_VAD}
    values = {
        "threshold": _first(asked.threshold, own.threshold),
        "prefix_padding_ms": _first(asked.prefix_padding_ms, own.prefix_padding_ms),
        "silence_duration_ms": _first(asked.silence_duration_ms, own.silence_duration_ms),
    }
    return described | {name: value for name, value in values.items() if value is not None}


def _first(asked: float | None, own: float | None) -> float | None:
    return own if asked is None else asked


def _included(session: RealtimeSession) -> list[str]:
    return [LOGPROBS] if session.with_logprobs else []
