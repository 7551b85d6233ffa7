"""Merges the sentences of channels that were recognized separately, in order of time."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

from serve_app.transcript.transcript import FailedRange, Sentence


class ChannelMerger:
    """Holds a part of the transcript back until no channel can yield an earlier one.

    Of two parts that start together, that of the lower channel comes first. Parts of the mix
    of all channels, whose `channel` is None, are in order already and are not held back. Only
    text is held back, and never for long: another channel is waited for while its speaker talks,
    at most for `segmenter.max_segment_s`, and until a pause ends its sentence.
    """

    def __init__(self) -> None:
        self._held: list[tuple[int, int, int, Sentence | FailedRange]] = []
        self._ready: list[Sentence | FailedRange] = []
        self._num_added = 0

    def add(self, parts: Iterable[Sentence | FailedRange]) -> None:
        """Takes parts of one channel, after its earlier ones."""
        for part in parts:
            if part.channel is None:
                self._ready.append(part)
            else:
                self._num_added += 1
                heapq.heappush(self._held, (part.start_ms, part.channel, self._num_added, part))

    def release(
        self, settled_ms: int, open_since_ms: Mapping[int, int]
    ) -> list[Sentence | FailedRange]:
        """Returns the parts that are certain to be next, in order.

        Args:
            settled_ms: no words that are still to come start before this.
            open_since_ms: by channel, start of its words that are no sentence yet.
        """
        # Words that start at settled_ms may be of any channel.
        limits = [(settled_ms, -1)]
        limits += [(start_ms, channel) for channel, start_ms in open_since_ms.items()]
        earliest = min(limits)
        released, self._ready = self._ready, []
        while self._held and self._held[0][:2] < earliest:
            released.append(heapq.heappop(self._held)[-1])
        return released

    def release_all(self) -> list[Sentence | FailedRange]:
        """Returns the rest in order, once all words have come."""
        released, self._ready = self._ready, []
        while self._held:
            released.append(heapq.heappop(self._held)[-1])
        return released
