"""Puts the utterances of each recording together again, in whatever order they come.

Of a recording that is under way nothing is held but words. How many are under way is
bounded by how many the segmenters may have open and by what may be on its way between
them and here, not by how many there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from serve_app.batch.arrow_tables import AudioEnd, Heard
from serve_app.core.records import Utterance


@dataclass(frozen=True, slots=True)
class HeardRecording:
    """All that was heard in a recording.

    Attributes:
        number: of the recording in this run.
        utterances: in order of time.
        recognize_s: its part of the recogniser's batches.
        end: how the segmenter came to its end.
    """

    number: int
    utterances: tuple[Utterance, ...]
    recognize_s: float
    end: AudioEnd

    @property
    def error(self) -> tuple[str, str] | None:
        """Kind and reason, if there can be no transcript."""
        if self.end.error is not None:
            return self.end.error
        failed = [one for one in self.utterances if one.status == "failed"]
        if not failed:
            return None
        first = failed[0]
        kind, _, message = (first.error or "engine_error: ").partition(": ")
        where = f"{first.start_ms / 1000:.1f}-{first.end_ms / 1000:.1f} s"
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        return kind, f"what was said at {where} could not be recognised: {message}{more}"


@dataclass(slots=True)
class _Open:
    utterances: dict[int, Utterance] = field(default_factory=dict)
    recognize_s: float = 0.0
    end: AudioEnd | None = None


class Assembler:
    """Collects rows of words until recordings are complete."""

    def __init__(self) -> None:
        self._open: dict[int, _Open] = {}
        self.audio_ms = 0
        """Of all utterances so far."""

    @property
    def num_open(self) -> int:
        return len(self._open)

    @property
    def open_numbers(self) -> list[int]:
        """Recordings that are not complete yet."""
        return sorted(self._open)

    def add(self, rows: Iterable[Heard]) -> list[HeardRecording]:
        """Returns the recordings that are complete with these rows."""
        complete: list[HeardRecording] = []
        for row in rows:
            recording = self._open.setdefault(row.number, _Open())
            recording.recognize_s += row.recognize_s
            if row.utterance is not None:
                recording.utterances[row.utterance.index] = row.utterance
                self.audio_ms += row.utterance.end_ms - row.utterance.start_ms
            if row.end is not None:
                recording.end = row.end
            end = recording.end
            if end is not None and len(recording.utterances) == end.num_chunks:
                del self._open[row.number]
                utterances = tuple(recording.utterances[i] for i in range(end.num_chunks))
                complete.append(HeardRecording(row.number, utterances, recording.recognize_s, end))
        return complete
