"""What the pipeline asks of a model, whatever its framework.

Implementations live in `serve_app.engines`; each port has a fake in
`tests/fakes/`. An engine is used by one thread at a time, or by as many as its
`max_in_flight` says; and by one more where it `is_reentrant`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from serve_app.core.records import (
    AS_DEPLOYED,
    ChunkFailure,
    Pcm,
    Recognition,
    RecognitionOptions,
    SpeechDetection,
    SpeechSegment,
)


class VadStream(Protocol):
    """Finds speech in one recording while it arrives."""

    def push(self, pcm: Pcm) -> list[SpeechSegment]:
        """Takes the next samples; returns the segments that ended, in order."""
        ...

    def finish(self) -> list[SpeechSegment]:
        """Ends the recording; returns the segments that were still open."""
        ...

    @property
    def keep_from_ms(self) -> int:
        """Audio before this time belongs to no segment still to come."""
        ...

    @property
    def open_since_ms(self) -> int | None:
        """Start of the segment that is open, None without one."""
        ...


class VoiceActivityDetector(Protocol):
    """Opens a stream per recording; streams share the weights."""

    def open(self, detection: SpeechDetection = AS_DEPLOYED) -> VadStream: ...


class Recognizer(Protocol):
    """Turns utterances into tokens."""

    @property
    def max_in_flight(self) -> int:
        """Calls of `transcribe` that may be under way at once, each on its own thread."""
        ...

    @property
    def is_reentrant(self) -> bool:
        """Whether a call of `transcribe` may begin while others compute, from a thread more
        than `max_in_flight` says: so that an urgent batch can overtake. Results are the
        same; False where that was not seen to, or would only wait for the others."""
        ...

    def transcribe(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions] = ()
    ) -> list[Recognition | ChunkFailure]:
        """Returns one result per item, in order; an item's result does not
        depend on its batch-mates.

        Args:
            batch: samples, each of shape [n].
            recognition_options: none at all, or one per item; a model ignores what it has no
                use for.
        """
        ...

    def cost(self, num_samples: int) -> int:
        """Encoder frames that an item of this length adds to a batch."""
        ...


class Punctuator(Protocol):
    """Labels words with the mark that follows each."""

    @property
    def max_in_flight(self) -> int:
        """Calls of `label` that may be under way at once, each on its own thread."""
        ...

    @property
    def is_reentrant(self) -> bool:
        """Whether a call of `label` may begin while others compute, from a thread more
        than `max_in_flight` says: so that an urgent batch can overtake. Results are the
        same; False where that was not seen to, or would only wait for the others."""
        ...

    def label(self, batch: Sequence[Sequence[str]]) -> list[list[str]]:
        """Returns, for each list of words, one of "", "，", "。", "？", "、" per
        word; a text's labels do not depend on its batch-mates."""
        ...
