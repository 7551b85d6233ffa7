"""The interfaces that models implement, whatever their framework.

Implementations live in `serve_app.engines`; each port has a fake in `tests/fakes/`. At most
`max_in_flight` threads use an engine at once, and one more if it `is_reentrant`.
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
from serve_app.core.speakers import Embeddings


class VadStream(Protocol):
    """Detects speech in one recording while it arrives."""

    def push(self, pcm: Pcm) -> list[SpeechSegment]:
        """Takes the next samples; returns the segments that ended, in order."""
        ...

    def finish(self) -> list[SpeechSegment]:
        """Ends the recording; returns the segments that were still open."""
        ...

    @property
    def keep_from_ms(self) -> int:
        """No later segment starts before this time."""
        ...

    @property
    def open_since_ms(self) -> int | None:
        """Start of the open segment, None without one."""
        ...


class VoiceActivityDetector(Protocol):
    """Opens a stream per recording; streams share the weights."""

    def open(self, detection: SpeechDetection = AS_DEPLOYED) -> VadStream: ...


class Recognizer(Protocol):
    """Turns chunks into tokens."""

    @property
    def max_in_flight(self) -> int:
        """Concurrent calls of `transcribe`, each on its own thread."""
        ...

    @property
    def is_reentrant(self) -> bool:
        """Whether one call of `transcribe` beyond `max_in_flight` may run beside the others, so
        that an urgent batch can overtake them. False where it is not supported or would
        only wait for them."""
        ...

    def transcribe(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions] = ()
    ) -> list[Recognition | ChunkFailure]:
        """Returns one result per item, in order; independent of how items are batched.

        Args:
            batch: samples, each of shape [n].
            recognition_options: empty, or one per item; a model ignores options that it
                does not support.
        """
        ...

    def cost(self, num_samples: int) -> int:
        """Returns the encoder frames that an item of this length adds to a batch."""
        ...


class Punctuator(Protocol):
    """Predicts the punctuation mark after each word."""

    @property
    def max_in_flight(self) -> int:
        """Concurrent calls of `label`, each on its own thread."""
        ...

    @property
    def is_reentrant(self) -> bool:
        """Whether one call of `label` beyond `max_in_flight` may run beside the others, so
        that an urgent batch can overtake them. False where it is not supported or would
        only wait for them."""
        ...

    def label(self, batch: Sequence[Sequence[str]]) -> list[list[str]]:
        """Returns, for each list of words, one of "", "，", "。", "？", "、" per
        word; independent of how texts are batched."""
        ...


class SpeakerEmbedder(Protocol):
    """Turns speech into embeddings that are close to each other for the same voice."""

    @property
    def max_in_flight(self) -> int:
        """Concurrent calls of `embed`, each on its own thread."""
        ...

    @property
    def is_reentrant(self) -> bool:
        """As in `Recognizer`."""
        ...

    def embed(self, batch: Sequence[Pcm]) -> list[Embeddings]:
        """Returns, for each item, an embedding per window of `speaker_windows`, in order;
        independent of how items are batched.

        Args:
            batch: samples of speech, each of shape [n].
        """
        ...

    def cost(self, num_samples: int) -> int:
        """Returns the windows that an item of this length adds to a batch."""
        ...
