"""The interface between the routes and the transcription pipeline."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from serve_app.api.parameters import Offer
from serve_app.core.records import (
    AS_DEPLOYED,
    NO_OPTIONS,
    FileBytes,
    HotwordCheck,
    RecognitionOptions,
    RequestContext,
    SpeechDetection,
    Stage,
    StageReadiness,
    Utterance,
)
from serve_app.core.speakers import SpeakerOptions
from serve_app.transcript.transcript import TranscriptEvent


@dataclass(frozen=True, slots=True)
class TranscriptionJob:
    """One accepted recording.

    Attributes:
        context: the request, its caller and its deadline.
        audio: the file as it was uploaded, shape [bytes].
        stages: to run.
        recognition_options: for the recognizer.
        speech_detection: for the VAD.
        speakers: label who speaks; None for no labels.
        separate_channels: recognize each channel for itself, instead of their mix.
        known: utterances of an earlier attempt at the same recording; their chunks are not
            recognized again.
    """

    context: RequestContext
    audio: FileBytes
    stages: frozenset[Stage]
    recognition_options: RecognitionOptions = NO_OPTIONS
    speech_detection: SpeechDetection = AS_DEPLOYED
    speakers: SpeakerOptions | None = None
    separate_channels: bool = False
    known: tuple[Utterance, ...] = ()


class TranscriptionService(Protocol):
    """Implemented by the ingress deployment over Serve handles."""

    @property
    def offer(self) -> Offer: ...

    async def check_hotwords(
        self, recognition_options: RecognitionOptions, context: RequestContext
    ) -> HotwordCheck:
        """Returns which of the hotwords the requested model can use."""
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
