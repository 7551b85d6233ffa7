"""What the routes need from the rest of the system."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from serve_app.api.parameters import Offer
from serve_app.core.chunks import FileBytes
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
    """

    origin: Origin
    audio: FileBytes
    stages: frozenset[Stage]


class TranscriptionService(Protocol):
    """Implemented by the ingress deployment over Serve handles."""

    @property
    def offer(self) -> Offer: ...

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
