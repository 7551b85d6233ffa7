"""The events that a Realtime session sends.

Source: OpenAI's API reference, "Realtime server events"; openai-python 3.57, `types/realtime`.
Fields that are not OpenAI's: `start`, `end` and `words` of a completed transcript, in s from the
session's start, and `position_ms` of the error that ends a session.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import TypeAlias

from serve_app.api.errors import error_body
from serve_app.api.responses import token_logprobs, words_of
from serve_app.core.errors import ParaserveError
from serve_app.live.records import FinalText, SegmentFailed

Event: TypeAlias = dict[str, object]

_TRANSCRIPTION = "conversation.item.input_audio_transcription"


def new_id(prefix: str) -> str:
    """Returns an id that is unique everywhere, such as `item_...`."""
    return f"{prefix}_{secrets.token_hex(12)}"


def event(kind: str, **fields: object) -> Event:
    return {"type": kind, "event_id": new_id("event"), **fields}


def error_event(
    error: ParaserveError, client_event_id: str | None = None, position_ms: int | None = None
) -> Event:
    """Returns the event that tells of an error.

    Args:
        error: what is wrong.
        client_event_id: id of the client's event that caused it.
        position_ms: audio up to which all texts were told, if the session ends.
    """
    told: dict[str, object] = {**error_body(error)["error"], "event_id": client_event_id}
    if position_ms is not None:
        told["position_ms"] = position_ms
    return event("error", error=told)


def committed(item_id: str, previous_item_id: str | None) -> Event:
    return event("input_audio_buffer.committed", item_id=item_id, previous_item_id=previous_item_id)


def item_events(item_id: str, previous_item_id: str | None, *, is_old: bool) -> list[Event]:
    """Returns the events by which a new item appears in the conversation."""
    item = {
        "id": item_id,
        "object": "realtime.item",
        "type": "message",
        "role": "user",
        "status": "completed",
        "content": [{"type": "input_audio", "transcript": None}],
    }
    kinds = ("created",) if is_old else ("added", "done")
    return [
        event(f"conversation.item.{kind}", previous_item_id=previous_item_id, item=item)
        for kind in kinds
    ]


def delta(item_id: str, text: str) -> Event:
    return event(f"{_TRANSCRIPTION}.delta", item_id=item_id, content_index=0, delta=text)


def completed(
    item_id: str, final: FinalText, language: str | None, *, with_logprobs: bool
) -> Event:
    """Returns the event of a segment's whole text."""
    fields: dict[str, object] = {
        "item_id": item_id,
        "content_index": 0,
        "transcript": final.text,
        "usage": {"type": "duration", "seconds": (final.end_ms - final.start_ms) / 1000},
        "languages": [{"code": language}] if language and final.text else [],
        "start": final.start_ms / 1000,
        "end": final.end_ms / 1000,
        "words": words_of(final.sentences),
    }
    if with_logprobs:
        fields["logprobs"] = token_logprobs(final.sentences)
    return event(f"{_TRANSCRIPTION}.completed", **fields)


def failed(item_id: str, failure: SegmentFailed) -> Event:
    error: Mapping[str, object] = {
        "type": "server_error",
        "code": failure.code,
        "message": failure.message,
        "param": None,
    }
    return event(f"{_TRANSCRIPTION}.failed", item_id=item_id, content_index=0, error=error)
