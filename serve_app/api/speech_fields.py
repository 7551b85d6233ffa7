"""The field `chunking_strategy`: how a caller wants speech to be found.

Source: OpenAI's API reference, "Create transcription": "auto", or an object of type
`server_vad` with `threshold`, `prefix_padding_ms` and `silence_duration_ms`.
"""

from __future__ import annotations

from collections.abc import Mapping

from serve_app.api.fields import VAD_FIELDS, RequestFields, meant_name, parse_json
from serve_app.core.errors import InvalidParameter
from serve_app.core.speech_detection import AS_DEPLOYED, SpeechDetection

_FIELD = "chunking_strategy"
_AUTO, _SERVER_VAD = "auto", "server_vad"
_OTHERWISE = f"{_AUTO} or a JSON object of type {_SERVER_VAD}"
MIN_SILENCE_MS, MAX_SILENCE_MS = 100, 6000
MAX_PADDING_MS = 2000
_MAX_SHOWN_LETTERS = 64


def parse_chunking(fields: RequestFields) -> tuple[SpeechDetection, tuple[str, ...]]:
    """Returns how speech is to be found, and names of parts that mean nothing here.

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
        meant = meant_name(name, [field for field in VAD_FIELDS if field not in parts])
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
