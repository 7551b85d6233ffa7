"""The audio that a segmenter has taken on and no recogniser has answered yet."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Backlog:
    """Sums up the recordings of one segmenter.

    It counts what is still to be decoded as well, by the length that the file's header
    declares. A window of calls keeps that from the recognisers' own queues, and yet it
    is why more of them are needed.
    """

    def __init__(self) -> None:
        self._recordings: set[RecordingBacklog] = set()

    def open(self) -> RecordingBacklog:
        """Returns a new recording's account; a context manager that ends it."""
        return RecordingBacklog(self._recordings)

    @property
    def num_recordings(self) -> int:
        return len(self._recordings)

    @property
    def audio_s(self) -> float:
        """Audio seconds that are still to be recognised, as far as is known."""
        return sum(recording.audio_s for recording in self._recordings)


class RecordingBacklog:
    """One recording's part of the backlog."""

    def __init__(self, recordings: set[RecordingBacklog]) -> None:
        self._recordings = recordings
        self._undecoded_s = 0.0
        self._decoded_s = 0.0
        self._speech_s = 0.0
        self._in_flight_s = 0.0

    def __enter__(self) -> Self:
        self._recordings.add(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._recordings.discard(self)

    def decoded(self, decoded_s: float, declared_s: float | None) -> None:
        """Tells how much has been decoded, of how much; None where nobody knows."""
        self._decoded_s = decoded_s
        self._undecoded_s = max(0.0, declared_s - decoded_s) if declared_s is not None else 0.0

    def sent(self, audio_s: float) -> None:
        """A group of chunks goes to the recogniser."""
        self._speech_s += audio_s
        self._in_flight_s += audio_s

    def answered(self, audio_s: float) -> None:
        """The group came back, or was given up."""
        self._in_flight_s = max(0.0, self._in_flight_s - audio_s)

    @property
    def audio_s(self) -> float:
        """In flight, and to come: as much of the rest as has been speech so far."""
        share = min(1.0, self._speech_s / self._decoded_s) if self._decoded_s > 0 else 1.0
        return self._in_flight_s + self._undecoded_s * share
