"""Cuts a stream of samples at VAD decisions into chunks that fit the recognizer.

Only audio that may still be needed is kept, so memory does not grow with the recording.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from serve_app.core.records import SAMPLES_PER_MS, Pcm, SpeechSegment

_ENERGY_FRAME_MS = 20
_SMOOTHING_FRAMES = 5


@dataclass(frozen=True, slots=True)
class ChunkAudio:
    """Audio of one chunk: pcm from start_ms to end_ms of the recording.

    `channel` and `settled_ms` are as in `Chunk`.
    """

    start_ms: int
    end_ms: int
    pcm: Pcm
    channel: int | None = None
    settled_ms: int = 0


def quietest_ms(pcm: Pcm, from_ms: int, to_ms: int) -> int:
    """Returns the time of the least energy in [from_ms, to_ms), relative to pcm's start.

    Energy is measured in frames of 20 ms and smoothed over 100 ms, so that a cut falls into a
    pause rather than a zero crossing. It splits a word only if the speaker makes no pause.
    """
    frame_samples = _ENERGY_FRAME_MS * SAMPLES_PER_MS
    searched = pcm[from_ms * SAMPLES_PER_MS : to_ms * SAMPLES_PER_MS].astype(np.float32)
    num_frames = len(searched) // frame_samples
    if num_frames < 1:
        return to_ms
    energy = np.square(searched[: num_frames * frame_samples]).reshape(num_frames, -1).mean(axis=1)
    smooth = np.convolve(np.pad(energy, _SMOOTHING_FRAMES // 2, mode="edge"), np.ones(5), "valid")
    # Of equally quiet frames the last one is taken: the chunk stays long.
    quietest = num_frames - 1 - int(np.argmin(smooth[::-1]))
    return from_ms + quietest * _ENERGY_FRAME_MS + _ENERGY_FRAME_MS // 2


class AudioTail:
    """The last part of a recording, addressed by the recording's own time."""

    def __init__(self) -> None:
        self._parts: deque[Pcm] = deque()
        self._start_sample = 0
        self._end_sample = 0

    @property
    def end_ms(self) -> int:
        return self._end_sample // SAMPLES_PER_MS

    @property
    def num_kept_samples(self) -> int:
        return self._end_sample - self._start_sample

    def append(self, pcm: Pcm) -> None:
        self._parts.append(pcm)
        self._end_sample += len(pcm)

    def drop_before(self, time_ms: int) -> None:
        """Lets go of whole parts that end before time_ms."""
        keep_from = time_ms * SAMPLES_PER_MS
        while self._parts and self._start_sample + len(self._parts[0]) <= keep_from:
            self._start_sample += len(self._parts.popleft())

    def slice(self, start_ms: int, end_ms: int) -> Pcm:
        """Returns a copy of the samples in [start_ms, end_ms), clipped to what is kept."""
        start = start_ms * SAMPLES_PER_MS - self._start_sample
        end = end_ms * SAMPLES_PER_MS - self._start_sample
        taken: list[Pcm] = []
        offset = 0
        for part in self._parts:
            first, last = max(start - offset, 0), min(end - offset, len(part))
            if first < last:
                taken.append(part[first:last])
            offset += len(part)
        return np.concatenate(taken) if taken else np.zeros(0, np.int16)


class SegmentChunker:
    """Turns VAD segments into chunks, none longer than the limit.

    A segment over the limit is divided in its quietest places, and its first
    parts are handed out while it is still open, so that an hour without a pause
    neither waits for its end nor fills the memory.

    Args:
        max_segment_s: longest chunk in s.
    """

    def __init__(self, max_segment_s: float) -> None:
        self._max_ms = int(max_segment_s * 1000)
        self._tail = AudioTail()
        self._done_until_ms = 0
        self._keep_from_ms = 0

    @property
    def num_kept_samples(self) -> int:
        return self._tail.num_kept_samples

    @property
    def settled_ms(self) -> int:
        """No later chunk starts before this."""
        return max(self._keep_from_ms, self._done_until_ms)

    def append(self, pcm: Pcm) -> None:
        """Takes the samples that were given to the VAD."""
        self._tail.append(pcm)

    def cut(
        self, closed: list[SpeechSegment], open_since_ms: int | None, keep_from_ms: int
    ) -> list[ChunkAudio]:
        """Returns what can be recognized now, in order.

        Args:
            closed: segments that the VAD ended with the last samples.
            open_since_ms: start of the segment that is open, None without one.
            keep_from_ms: the VAD will start no segment before this.
        """
        chunks: list[ChunkAudio] = []
        for segment in closed:
            start_ms = max(segment.start_ms, self._done_until_ms)
            end_ms = min(segment.end_ms, self._tail.end_ms)
            while end_ms - start_ms > self._max_ms:
                start_ms = self._take_chunk(start_ms, chunks)
            if end_ms > start_ms:
                chunks.append(ChunkAudio(start_ms, end_ms, self._tail.slice(start_ms, end_ms)))
                self._done_until_ms = end_ms
        if open_since_ms is not None:
            start_ms = max(open_since_ms, self._done_until_ms)
            # The VAD may still set a segment's end back by its trailing silence,
            # so a part is taken only when twice the search range is at hand.
            while self._tail.end_ms - start_ms > self._max_ms + self._max_ms // 2:
                start_ms = self._take_chunk(start_ms, chunks)
            keep_from_ms = min(keep_from_ms, start_ms)
        self._keep_from_ms = keep_from_ms
        self._tail.drop_before(self.settled_ms)
        return chunks

    def _take_chunk(self, start_ms: int, chunks: list[ChunkAudio]) -> int:
        """Cuts one part off a segment that is too long; returns where the rest starts."""
        pcm = self._tail.slice(start_ms, start_ms + self._max_ms)
        split_ms = start_ms + quietest_ms(pcm, self._max_ms // 2, self._max_ms)
        chunks.append(ChunkAudio(start_ms, split_ms, pcm[: (split_ms - start_ms) * SAMPLES_PER_MS]))
        self._done_until_ms = split_ms
        return split_ms


class FixedChunker:
    """Divides the whole stream into chunks at quiet places, without a VAD.

    Args:
        max_segment_s: longest chunk in s.
    """

    def __init__(self, max_segment_s: float) -> None:
        self._chunker = SegmentChunker(max_segment_s)
        self._end_samples = 0

    @property
    def settled_ms(self) -> int:
        """No later chunk starts before this."""
        return self._chunker.settled_ms

    def append(self, pcm: Pcm) -> None:
        self._chunker.append(pcm)
        self._end_samples += len(pcm)

    def cut(self) -> list[ChunkAudio]:
        """Returns the chunks that are final, in order."""
        return self._chunker.cut([], 0, 0)

    def finish(self) -> list[ChunkAudio]:
        """Returns the rest."""
        end_ms = self._end_samples // SAMPLES_PER_MS
        return self._chunker.cut([SpeechSegment(0, end_ms)], None, end_ms)
