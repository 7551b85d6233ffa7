"""What a request may change of how its speech is found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SpeechDetection:
    """How the speech of one recording is to be found; None for as the deployment does it.

    Attributes:
        silence_duration_ms: silence that ends a segment.
        prefix_padding_ms: audio that a segment has before the speech that was noticed.
        threshold: from 0 to 1, how certain speech must be; 0.5 is the deployment's own,
            higher hears less.
    """

    silence_duration_ms: int | None = None
    prefix_padding_ms: int | None = None
    threshold: float | None = None


AS_DEPLOYED = SpeechDetection()
