"""Placeholder."""

from __future__ import annotations

from dataclasses import dataclass

from serve_app.core.records import RequestContext
from serve_app.core.speakers import Diarization, Embeddings, SpeakerOptions, SpeakerWindows


@dataclass(frozen=True, slots=True)
class DiarizationTask:
    """The windows of a whole recording, and what its request tells about the speakers."""

    context: RequestContext
    windows: SpeakerWindows
    options: SpeakerOptions


def diarize(
    windows: SpeakerWindows, options: SpeakerOptions, known: Embeddings | None
) -> Diarization:
    raise NotImplementedError
