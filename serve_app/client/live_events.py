"""What a live session tells, as records; times in seconds from the start of its audio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from serve_app.client.answers import Word, languages_of, words_of
from serve_app.client.errors import ClientError

_MS_PER_S = 1000
_TRANSCRIPTION = "conversation.item.input_audio_transcription."


@dataclass(frozen=True, slots=True)
class LiveSpeechStarted:
    """Someone speaks; a segment is open, whose events have the same `item_id`."""

    item_id: str
    start_s: float


@dataclass(frozen=True, slots=True)
class LiveSpeechStopped:
    """The segment ends here; its `LiveFinal` or `LiveFailure` follows."""

    item_id: str
    end_s: float


@dataclass(frozen=True, slots=True)
class LivePartial:
    """More of the text of an open segment.

    Attributes:
        item_id: of the segment.
        delta: what is new; earlier text is never taken back.
        text: all of the segment so far.
    """

    item_id: str
    delta: str
    text: str


@dataclass(frozen=True, slots=True)
class LiveFinal:
    """The text of a segment that has ended.

    Attributes:
        item_id: of the segment.
        text: exactly the deltas, joined; empty where nothing was recognized.
        start_s, end_s: of the segment; None of a service that does not tell.
        words: with times, of a service that tells them.
        languages: of the segment, of a service that tells them.
    """

    item_id: str
    text: str
    start_s: float | None = None
    end_s: float | None = None
    words: tuple[Word, ...] = ()
    languages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LiveFailure:
    """A segment has no text because of an error; the session goes on."""

    item_id: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class LiveError:
    """The service refuses or warns of something; if it ends the session, `LiveEnded` follows.

    Attributes:
        code: of the API's errors.
        message: in English.
        position_s: audio up to which all texts were told, if the service says so: where
            another session should start.
    """

    code: str
    message: str
    position_s: float | None = None


LiveEvent: TypeAlias = (
    LiveSpeechStarted | LiveSpeechStopped | LivePartial | LiveFinal | LiveFailure | LiveError
)


class LiveEnded(ClientError):
    """The session ended before it was finished.

    Attributes:
        position_s: audio up to which all texts were told. Open another session and send the
            audio from there.
    """

    def __init__(self, code: str, message: str, position_s: float) -> None:
        super().__init__(0, code, message)
        self.args = (code, message, position_s)
        self.position_s = position_s

    @property
    def may_succeed_later(self) -> bool:
        return True


@dataclass(slots=True)
class _Segment:
    text: str = ""
    start_s: float | None = None
    end_s: float | None = None


class LiveTranscript:
    """The segments of a session, by its events in their order.

    Attributes:
        position_s: audio up to which all texts were told.
    """

    def __init__(self) -> None:
        self.position_s = 0.0
        self._open: dict[str, _Segment] = {}

    @property
    def is_complete(self) -> bool:
        """Whether no segment waits for its text."""
        return not self._open

    def take(self, event: Mapping[str, Any]) -> LiveEvent | None:
        """Reads a server event; None for one that callers do not need.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is not of the protocol.
        """
        kind = str(event["type"])
        if kind == "error":
            return self._error(event["error"])
        if kind.startswith(_TRANSCRIPTION):
            return self._transcription(kind.removeprefix(_TRANSCRIPTION), event)
        if not kind.startswith("input_audio_buffer.") or "item_id" not in event:
            return None
        item_id = str(event["item_id"])
        segment = self._open.setdefault(item_id, _Segment())
        if kind.endswith(".speech_started"):
            segment.start_s = float(event["audio_start_ms"]) / _MS_PER_S
            return LiveSpeechStarted(item_id, segment.start_s)
        if kind.endswith(".speech_stopped"):
            segment.end_s = float(event["audio_end_ms"]) / _MS_PER_S
            return LiveSpeechStopped(item_id, segment.end_s)
        return None

    def _transcription(self, kind: str, event: Mapping[str, Any]) -> LiveEvent | None:
        item_id = str(event["item_id"])
        if kind == "delta":
            segment = self._open.setdefault(item_id, _Segment())
            delta = str(event.get("delta") or "")
            segment.text += delta
            return LivePartial(item_id, delta, segment.text)
        if kind == "completed":
            segment = self._close(item_id, event)
            return LiveFinal(
                item_id,
                str(event["transcript"]),
                segment.start_s,
                segment.end_s,
                words_of(event),
                languages_of(event),
            )
        if kind == "failed":
            self._close(item_id, event)
            error = event["error"]
            code = str(error.get("code") or "transcription_failed")
            return LiveFailure(item_id, code, str(error.get("message") or code))
        return None

    def _close(self, item_id: str, event: Mapping[str, Any]) -> _Segment:
        segment = self._open.pop(item_id, _Segment())
        if event.get("start") is not None and event.get("end") is not None:
            segment.start_s, segment.end_s = float(event["start"]), float(event["end"])
        if segment.end_s is not None:
            self.position_s = max(self.position_s, segment.end_s)
        return segment

    def _error(self, error: Mapping[str, Any]) -> LiveError:
        position_ms = error.get("position_ms")
        position_s = None if position_ms is None else float(position_ms) / _MS_PER_S
        if position_s is not None:
            self.position_s = max(self.position_s, position_s)
        code = str(error.get("code") or error.get("type") or "error")
        return LiveError(code, str(error.get("message") or code), position_s)
