"""What became of each recording of a run, and how far the run is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from serve_app.batch.assembling import HeardRecording
from serve_app.batch.punctuate_stage import Finished


@dataclass(frozen=True, slots=True)
class Failed:
    """A recording that has no transcript.

    Attributes:
        number: of the recording in this run.
        kind: code of the error.
        reason: a sentence.
        permanent: trying again is of no use.
        attempts: how often it was tried.
        audio_s: of it that was decoded.
    """

    number: int
    kind: str
    reason: str
    permanent: bool
    attempts: int
    audio_s: float


@dataclass(frozen=True, slots=True)
class Recognized:
    """Tells how far the recognisers are.

    Attributes:
        audio_s: of all utterances that came back so far.
        num_open: recordings of which some came back, and not yet all.
    """

    audio_s: float
    num_open: int


Outcome: TypeAlias = Finished | Failed | Recognized


def failed_of(heard: HeardRecording) -> Failed:
    kind, reason = heard.error or ("engine_error", "unknown")
    end = heard.end
    return Failed(heard.number, kind, reason, end.permanent, end.attempts, end.duration_ms / 1000)
