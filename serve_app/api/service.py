"""What the routes need from the rest of the system."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from serve_app.api.parameters import Offer
from serve_app.core.chunks import FileBytes
from serve_app.core.hints import NO_HINTS, Hints
from serve_app.core.origin import Origin
from serve_app.core.stages import Stage, StageReadiness
from serve_app.core.transcripts import TranscriptEvent


@dataclass(frozen=True, slots=True)
class TranscriptionJob:
    """One accepted recording.

    Attributes:
        origin: the request, its caller and its deadline.
        audio: the file as it was uploaded, shape [bytes].
        stages: what is to be done with it.
        hints: for the recogniser.
    """

    origin: Origin
    audio: FileBytes
    stages: frozenset[Stage]
    hints: Hints = NO_HINTS


class TranscriptionService(Protocol):
    """Implemented by the ingress deployment over Serve handles."""

    @property
    def offer(self) -> Offer: ...

    async def check_hotwords(self, hints: Hints, origin: Origin) -> None:
        """Finds out whether the model that is hinted at has a use for the hotwords.

        Raises:
            InvalidParameter: it has none, or cannot write one of them.
        """
        ...

    def transcribe(self, job: TranscriptionJob) -> AsyncGenerator[TranscriptEvent]:
        """Yields the transcript in order of time, then one `RecordingEnd`.

        Raises:
            ParaserveError: the recording cannot be transcribed.
        """
        ...

    async def readiness(self) -> list[StageReadiness]:
        """Returns an entry per deployed stage.

        Raises:
            NotReady: a stage has not warmed up.
        """
        ...
