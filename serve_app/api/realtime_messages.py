"""Reads the events that clients of the Realtime protocol send.

Only audio may be large. It is cut out of the text before that is parsed, so that a large event
of many small values, which would take many times its size as objects, is never built.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass

from serve_app.core.live_errors import UnknownEvent

MAX_EVENT_CHARS = 15 * 2**20
"""Source: OpenAI's API reference, `input_audio_buffer.append`: at most 15 MiB."""

MAX_PLAIN_CHARS = 256 * 1024
_MAX_ID_CHARS = 512
# A string of base64; some writers escape the slash.
_AUDIO = re.compile(r'("audio"\s*:\s*)"([A-Za-z0-9+/=_\\-]*)"')
_URL_SAFE = str.maketrans("-_", "+/")


@dataclass(frozen=True, slots=True)
class ClientEvent:
    """One event of a client.

    Attributes:
        kind: its type.
        event_id: as the client sent it, for errors; None without one.
        fields: all of them, without audio.
        audio: decoded, of an event that has some.
    """

    kind: str
    event_id: str | None
    fields: dict[str, object]
    audio: bytes | None = None


class BadEvent(Exception):
    """An event could not be read.

    Args:
        error: what is wrong.
        event_id: of the event, where it could be read.
    """

    def __init__(self, error: UnknownEvent, event_id: str | None = None) -> None:
        super().__init__(error, event_id)
        self.error = error
        self.event_id = event_id


def read_event(message: str | bytes) -> ClientEvent:
    """Reads a message.

    Raises:
        BadEvent: it is no event, or too large, or its audio is not base64.
    """
    if isinstance(message, bytes):
        raise BadEvent(
            UnknownEvent("events are JSON text; send audio as base64 in input_audio_buffer.append")
        )
    if len(message) > MAX_EVENT_CHARS:
        raise BadEvent(UnknownEvent(f"an event may have at most {MAX_EVENT_CHARS} characters"))
    encoded: str | None = None
    match = _AUDIO.search(message)
    if match is not None:
        encoded = match[2]
        message = f'{message[: match.start()]}{match[1]}""{message[match.end() :]}'
    if len(message) > MAX_PLAIN_CHARS:
        raise BadEvent(
            UnknownEvent(f"an event without audio may have at most {MAX_PLAIN_CHARS} characters")
        )
    try:
        fields = json.loads(message)
    except (ValueError, RecursionError):
        raise BadEvent(UnknownEvent("the event is not valid JSON")) from None
    if not isinstance(fields, dict):
        raise BadEvent(UnknownEvent("an event must be a JSON object"))
    event_id = fields.get("event_id")
    if not isinstance(event_id, str) or len(event_id) > _MAX_ID_CHARS:
        event_id = None
    kind = fields.get("type")
    if not isinstance(kind, str):
        raise BadEvent(UnknownEvent("an event must have a type"), event_id)
    audio = None
    if encoded is not None and fields.get("audio") == "":
        audio = _decoded(encoded, event_id)
    return ClientEvent(kind, event_id, fields, audio)


def _decoded(encoded: str, event_id: str | None) -> bytes:
    try:
        return base64.b64decode(encoded.replace("\\/", "/").translate(_URL_SAFE), validate=True)
    except (binascii.Error, ValueError):
        raise BadEvent(UnknownEvent("audio is not valid base64"), event_id) from None
