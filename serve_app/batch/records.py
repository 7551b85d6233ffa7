"""The records of a batch job that travel between its parts, all plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, get_args

from serve_app.core.records import PackRole, Stage
from serve_app.settings.batch import TextFormat
from serve_app.transcript.transcript import Transcript

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

TEXT_FORMATS: tuple[TextFormat, ...] = get_args(TextFormat)

READ_ERROR = "read_error"
"""Kind of a failure whose cause is the way to the file, not the file."""

NOT_FOUND = "not_found"
"""Kind of a failure whose recording is not where the manifest says."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What tells one content of a file from another without reading it.

    Attributes:
        size_bytes: None where the store does not say.
        version: entity tag, checksum or time of the last change, as the store
            gives it; None where it gives none.
    """

    size_bytes: int | None
    version: str | None


@dataclass(frozen=True, slots=True)
class BatchItem:
    """A recording that is to be transcribed.

    Attributes:
        id: unique in a job; names the outputs.
        uri: an absolute path, or a URL that fsspec can open.
        language: None for the recognizer's own.
        stages: in the order of `STAGES`; None for all that the job runs.
        reference: what was said, for the CER; None if it is not known.
        metadata: passed on to the output as it is.
        file: size and version where a listing gave them; None to ask the store
            (`fingerprint.file_info`).
    """

    id: str
    uri: str
    language: str | None = None
    stages: tuple[Stage, ...] | None = None
    reference: str | None = None
    metadata: Mapping[str, JsonValue] = field(default_factory=dict)
    file: FileInfo | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a recording has no transcript.

    Attributes:
        id: of the item.
        uri: of the item; its secrets are removed before it is written anywhere.
        kind: code of the error: `corrupt_audio`, `not_found`, `read_error`.
        reason: a sentence for people.
        permanent: trying again is of no use unless the file changes.
        attempts: how often it was tried in this run of the job.
        fingerprint: of the item when it failed; "" where the file could not even be found.
    """

    id: str
    uri: str
    kind: str
    reason: str
    permanent: bool
    attempts: int
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class PackIdentity:
    """Which weights did the work."""

    name: str
    checksum: str


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Seconds that a recording took.

    Those of a stage are compute, shared out by audio where recordings shared a batch,
    so that all recordings together took what the stage took.

    Attributes:
        segment_s: reading, decoding, VAD.
        recognize_s: its part of the recognizer's batches.
        punctuate_s: punctuation.
        wall_s: from the first byte read to the finished transcript.
    """

    segment_s: float
    recognize_s: float
    punctuate_s: float
    wall_s: float


@dataclass(frozen=True, slots=True)
class FinishedRecording:
    """A transcript, and how it came about.

    Attributes:
        item: what was asked for.
        fingerprint: `fingerprint.item_fingerprint` of content and configuration.
        transcript: complete; it may be partial in the sense of `Transcript.partial`.
        times: what it took.
        models: by what they are for, those that ran.
        audio_s: length of the recording.
    """

    item: BatchItem
    fingerprint: str
    transcript: Transcript
    times: StageTimes
    models: Mapping[PackRole, PackIdentity]
    audio_s: float
