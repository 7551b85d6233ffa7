"""The form fields `chunking_strategy`, `language` and `languages`.

Source: OpenAI's API reference, "Create transcription": `chunking_strategy` is "auto", or an
object of type `server_vad` with `threshold`, `prefix_padding_ms` and `silence_duration_ms`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from serve_app.api.fields import VAD_FIELDS, RequestFields, parse_json
from serve_app.core.errors import InvalidParameter
from serve_app.core.languages import GUESSED, NAMES_OF_LANGUAGES, language_code, names_a_language
from serve_app.core.records import AS_DEPLOYED, SpeechDetection
from serve_app.settings.problems import nearest_name

_FIELD = "chunking_strategy"
_AUTO, _SERVER_VAD = "auto", "server_vad"
_OTHERWISE = f"{_AUTO} or a JSON object of type {_SERVER_VAD}"
MIN_SILENCE_MS, MAX_SILENCE_MS = 100, 6000
MAX_PADDING_MS = 2000
_MAX_SHOWN_LETTERS = 64


def parse_chunking(fields: RequestFields) -> tuple[SpeechDetection, tuple[str, ...]]:
    """Returns the detection options, and the names of unknown parts.

    Raises:
        InvalidParameter: it is neither `auto` nor of type `server_vad`, or a value is out of
            bounds.
    """
    parts: dict[str, object] = dict(fields.vad or {})
    if fields.chunking_strategy is not None:
        kind = _read(fields.chunking_strategy)
        if isinstance(kind, dict):
            parts = {**kind, **parts}
        else:
            parts.setdefault("type", kind)
    parts = {name: value for name, value in parts.items() if value not in (None, "")}
    if not parts:
        return AS_DEPLOYED, ()
    kind = parts.setdefault("type", _SERVER_VAD)
    if kind not in (_AUTO, _SERVER_VAD):
        raise InvalidParameter(_FIELD, f"must be {_OTHERWISE}")
    ignored = _unknown(parts)
    if kind == _AUTO:
        return AS_DEPLOYED, ignored
    silence_ms = _number(parts, "silence_duration_ms", MIN_SILENCE_MS, MAX_SILENCE_MS)
    padding_ms = _number(parts, "prefix_padding_ms", 0, MAX_PADDING_MS)
    detection = SpeechDetection(
        silence_duration_ms=None if silence_ms is None else round(silence_ms),
        prefix_padding_ms=None if padding_ms is None else round(padding_ms),
        threshold=_number(parts, "threshold", 0, 1),
    )
    return detection, ignored


def _read(text: str) -> object:
    if text.lstrip()[:1] not in ("{", '"'):
        return text.strip().lower()
    parsed = parse_json(_FIELD, text, _OTHERWISE)
    return (
        {str(name): value for name, value in parsed.items()} if isinstance(parsed, dict) else parsed
    )


def _unknown(parts: Mapping[str, object]) -> tuple[str, ...]:
    unknown = [name for name in parts if name not in VAD_FIELDS]
    for name in unknown:
        meant = nearest_name(name, [field for field in VAD_FIELDS if field not in parts])
        if meant is not None:
            shown = name[:_MAX_SHOWN_LETTERS].encode(errors="replace").decode()
            raise InvalidParameter(
                f"{_FIELD}[{shown}]", f"is not a known field; did you mean {_FIELD}[{meant}]?"
            )
    return tuple(f"{_FIELD}[{name}]" for name in unknown)


def _number(parts: Mapping[str, object], name: str, lowest: float, highest: float) -> float | None:
    value = parts.get(name)
    if value is None:
        return None
    try:
        number = float(value) if isinstance(value, str | int | float) else None
    except (ValueError, OverflowError):
        number = None
    if isinstance(value, bool) or number is None or not lowest <= number <= highest:
        raise InvalidParameter(
            f"{_FIELD}[{name}]", f"must be a number from {lowest:g} to {highest:g}"
        )
    return number


class SpokenOffer(Protocol):
    """The languages that a deployment supports, and how strict it is."""

    @property
    def languages(self) -> tuple[str, ...]: ...

    @property
    def default_language(self) -> str | None: ...

    @property
    def guesses_language(self) -> bool: ...

    @property
    def unknown_fields(self) -> str: ...


def parse_language(name: str, value: str, offer: SpokenOffer) -> str | None:
    """Returns the code of the requested language, GUESSED if it should be guessed.

    None where the value says nothing: it is to be guessed and nothing here guesses, or it is
    neither a code nor a name of a language, and that is not refused here.

    Raises:
        InvalidParameter: the language is not served, or its name is misspelled or, where
            that is wanted, unknown.
    """
    code = language_code(value)
    if code == GUESSED:
        return GUESSED if offer.guesses_language else offer.default_language or GUESSED
    if code in offer.languages:
        return code
    shown = repr(value.strip()[:_MAX_SHOWN_LETTERS])
    served = ", ".join(offer.languages)
    if names_a_language(value):
        raise InvalidParameter(name, f"{shown} is not supported by this model; supported: {served}")
    meant = nearest_name(value, NAMES_OF_LANGUAGES) if value.isascii() else None
    if meant is not None:
        raise InvalidParameter(name, f"is {shown}; did you mean {meant}?")
    if offer.unknown_fields == "refuse":
        raise InvalidParameter(name, f"is {shown}, which is not a language; supported: {served}")
    return None
