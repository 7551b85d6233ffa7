"""Finds where the segments of a session begin and end, and keeps the audio of the open one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from serve_app.core.ports import VadStream, VoiceActivityDetector
from serve_app.core.records import SAMPLES_PER_MS, Pcm, SpeechDetection, SpeechSegment
from serve_app.live.audio_input import AudioInput
from serve_app.live.records import AudioFormat
from serve_app.transcript.chunking import AudioTail, quietest_ms

MIN_COMMIT_MS = 100
_MAX_COMMIT_MS = 1000
"""Audio without speech that a commit can still make a segment of."""
VAD_BLOCK_FRAMES = 20
"""Frames of 10 ms that the VAD of live sessions decides together."""

_SETTLE_MS = 1000
"""After a cut, speech must go on for so long before the next segment is announced: what follows
may be the silence that ends the speech."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A segment begins."""

    start_ms: int


@dataclass(frozen=True, slots=True)
class Closed:
    """The segment that was opened last ends.

    Attributes:
        start_ms, end_ms: of the segment.
        pcm: its audio; empty if it was cleared.
        cleared: its audio is not to be recognized.
    """

    start_ms: int
    end_ms: int
    pcm: Pcm = field(compare=False, repr=False)
    cleared: bool = False


Boundary: TypeAlias = Opened | Closed


class Segmenter:
    """Divides one session's audio into segments, keeping only the audio still needed.

    Not thread-safe; its methods compute, so they belong on a thread other than the event loop's.

    Args:
        audio: format of the bytes.
        vad: detects speech; None if only the caller ends segments.
        detection: of speech; None if only the caller ends segments.
        max_segment_s: longer segments are cut at a quiet place.
    """

    def __init__(
        self,
        audio: AudioFormat,
        vad: VoiceActivityDetector | None,
        detection: SpeechDetection | None,
        max_segment_s: float,
    ) -> None:
        self._input = AudioInput(audio)
        self._vad = vad
        self._detection = self._next_detection = detection if vad is not None else None
        self._max_ms = int(max_segment_s * 1000)
        self._tail = AudioTail()
        self._stream: VadStream | None = None
        self._stream_start_ms = 0
        self._done_until_ms = 0
        self._open_since_ms: int | None = None
        self._announced = False
        self.told_until_ms = 0
        """Words up to here were told, so that no later cut is before it."""
        self._restart(0, [])

    @property
    def end_ms(self) -> int:
        """Audio so far."""
        return self._tail.end_ms

    @property
    def open_since_ms(self) -> int | None:
        """Start of the segment that was opened last; None if it was closed."""
        return self._open_since_ms if self._announced else None

    @property
    def keep_from_ms(self) -> int:
        """No open or later segment starts before this."""
        if self._open_since_ms is not None:
            return self._open_since_ms
        if self._stream is None:
            return self._done_until_ms
        return max(self._done_until_ms, self._stream_start_ms + self._stream.keep_from_ms)

    @property
    def num_kept_samples(self) -> int:
        return self._tail.num_kept_samples

    @property
    def _commit_from_ms(self) -> int:
        if self._open_since_ms is not None:
            return self._open_since_ms
        return max(self._done_until_ms, min(self.keep_from_ms, self._tail.end_ms - _MAX_COMMIT_MS))

    def open_audio(self) -> Pcm:
        """Returns a copy of the open segment's audio so far."""
        if self._open_since_ms is None:
            return np.zeros(0, np.int16)
        return self._tail.slice(self._open_since_ms, self._tail.end_ms)

    def push(self, data: bytes) -> list[Boundary]:
        """Takes the next bytes; returns the boundaries that they made known, in order."""
        return self._take(self._input.push(data))

    def commit(self) -> list[Boundary]:
        """Ends the open segment here, or the audio since the last one if none is open.

        Of audio without speech, the last `_MAX_COMMIT_MS` are taken. Nothing is ended if there is
        less than `MIN_COMMIT_MS` and no segment was announced.
        """
        found = self._take(self._input.flush())
        start_ms = self._commit_from_ms
        if self._tail.end_ms - start_ms >= MIN_COMMIT_MS or self._announced:
            self._close(SpeechSegment(start_ms, self._tail.end_ms), found)
            self._restart(self._tail.end_ms, found)
        elif self._detection != self._next_detection:
            self._change_detection(found)
        return found

    def clear(self) -> list[Boundary]:
        """Forgets the audio since the last segment's end."""
        found = self._take(self._input.flush())
        end_ms = self._tail.end_ms
        if self._open_since_ms is not None and self._announced:
            nothing = np.zeros(0, np.int16)
            found.append(Closed(self._open_since_ms, end_ms, nothing, cleared=True))
        self._done_until_ms = end_ms
        self._open_since_ms = None
        self._announced = False
        self._restart(end_ms, found)
        return found

    def configure(self, detection: SpeechDetection | None) -> list[Boundary]:
        """Changes the detection from the next segment on.

        Audio that only a commit would have ended becomes a segment, if speech is detected from
        here on.
        """
        self._next_detection = detection if self._vad is not None else None
        if self._next_detection == self._detection:
            return []
        if self._stream is None:
            return self.commit()
        found: list[Boundary] = []
        if self._open_since_ms is None:
            self._change_detection(found)
        return found

    def finish(self) -> list[Boundary]:
        """Ends the audio, and with it the open segment."""
        found = self._take(self._input.flush())
        if self._stream is not None:
            for segment in self._stream.finish():
                self._close(self._in_session(segment), found)
        if self._open_since_ms is not None:
            self._close(SpeechSegment(self._open_since_ms, self._tail.end_ms), found)
        self._done_until_ms = self._tail.end_ms
        self._stream = None
        return found

    def _take(self, pcm: Pcm) -> list[Boundary]:
        found: list[Boundary] = []
        if len(pcm):
            self._tail.append(pcm)
            self._detect(pcm, found)
            self._tail.drop_before(self._commit_from_ms)
        return found

    def _detect(self, pcm: Pcm, found: list[Boundary]) -> None:
        if self._stream is None:
            self._open(self._done_until_ms, found)
            self._cut(found)
            return
        for segment in self._stream.push(pcm):
            self._close(self._in_session(segment), found)
        open_since_ms = self._stream.open_since_ms
        if open_since_ms is not None:
            self._open(max(self._stream_start_ms + open_since_ms, self._done_until_ms), found)
            self._cut(found)
        elif self._detection != self._next_detection:
            self._change_detection(found)

    def _in_session(self, segment: SpeechSegment) -> SpeechSegment:
        start_ms = self._stream_start_ms
        return SpeechSegment(start_ms + segment.start_ms, start_ms + segment.end_ms)

    def _open(self, start_ms: int, found: list[Boundary]) -> None:
        """Opens a segment, or announces one that goes on after a cut."""
        if self._open_since_ms is None:
            self._open_since_ms = start_ms
        is_rest = self._stream is not None and 0 < self._done_until_ms == self._open_since_ms
        if self._announced or (is_rest and self._tail.end_ms - start_ms < _SETTLE_MS):
            return
        self._announce(found)

    def _announce(self, found: list[Boundary]) -> None:
        if self._open_since_ms is not None and not self._announced:
            found.append(Opened(self._open_since_ms))
            self._announced = True

    def _cut(self, found: list[Boundary]) -> None:
        """Cuts open speech that is too long."""
        while self._open_since_ms is not None and self._is_too_long(self._tail.end_ms):
            self._split(found)
            self._open(self._done_until_ms, found)

    def _close(self, segment: SpeechSegment, found: list[Boundary]) -> None:
        """Ends the open segment, or one that was not open yet, where the VAD ended it."""
        if self._open_since_ms is None:
            self._open_since_ms = max(segment.start_ms, self._done_until_ms)
        end_ms = min(segment.end_ms, self._tail.end_ms)
        while self._is_too_long(end_ms):
            self._split(found)
        start_ms = self._open_since_ms
        if end_ms > start_ms or self._announced:
            end_ms = max(start_ms, end_ms)
            self._announce(found)
            found.append(Closed(start_ms, end_ms, self._tail.slice(start_ms, end_ms)))
            self._done_until_ms = end_ms
        self._open_since_ms = None
        self._announced = False

    def _is_too_long(self, end_ms: int) -> bool:
        return self._open_since_ms is not None and end_ms - self._open_since_ms > self._max_ms

    def _split(self, found: list[Boundary]) -> None:
        """Cuts the open segment in its quietest place; the rest is open, but not announced."""
        start_ms = 0 if self._open_since_ms is None else self._open_since_ms
        pcm = self._tail.slice(start_ms, start_ms + self._max_ms)
        from_ms = min(max(self._max_ms // 2, self.told_until_ms - start_ms), self._max_ms)
        split_ms = start_ms + quietest_ms(pcm, from_ms, self._max_ms)
        self._announce(found)
        found.append(Closed(start_ms, split_ms, pcm[: (split_ms - start_ms) * SAMPLES_PER_MS]))
        self._announced = False
        self._open_since_ms = self._done_until_ms = split_ms

    def _change_detection(self, found: list[Boundary]) -> None:
        is_on = self._next_detection is not None
        self._restart(self.keep_from_ms if is_on else self._commit_from_ms, found)

    def _restart(self, from_ms: int, found: list[Boundary]) -> None:
        """Detects speech anew from a time on, with the next detection."""
        self._detection = self._next_detection
        self._stream = None
        self._open_since_ms = None
        self._done_until_ms = max(self._done_until_ms, from_ms)
        if self._vad is not None and self._detection is not None:
            self._stream = self._vad.open(self._detection)
            self._stream_start_ms = from_ms
        kept = self._tail.slice(from_ms, self._tail.end_ms)
        if len(kept):
            self._detect(kept, found)
