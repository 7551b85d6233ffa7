"""The plain records that the parts of a batch job exchange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from serve_app.core.records import PackRole, Stage
from serve_app.core.speakers import SpeakerOptions
from serve_app.settings.batch import TextFormat
from serve_app.transcript.transcript import Transcript

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

TEXT_FORMATS: tuple[TextFormat, ...] = get_args(TextFormat)

ChannelMode: TypeAlias = Literal["mix", "separate"]

NO_KNOWN_SPEAKERS = (
    "a batch job cannot name speakers, only label them A, B and so on; "
    "`paraserve transcribe --speaker` and the HTTP API can"
)
"""Why a job that names known speakers is refused."""

READ_ERROR = "read_error"
"""Kind of a failure to reach a file, whatever its content."""

NOT_FOUND = "not_found"
"""Kind of a failure whose recording does not exist at its URI."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """Identifies the content of a file without reading it.

    Attributes:
        size_bytes: None if the store does not report it.
        version: entity tag, checksum or modification time, as the store reports it;
            None if it reports none.
    """

    size_bytes: int | None
    version: str | None


@dataclass(frozen=True, slots=True)
class BatchItem:
    """A recording to transcribe.

    Attributes:
        id: unique in a job; determines the names of the outputs.
        uri: an absolute path, or a URL that fsspec can open.
        language: None for the recognizer's default.
        stages: in the order of `STAGES`; None for all of the job.
        speakers: what is known about the speakers; None for what the job knows.
        reference: reference text for the CER; None if there is none.
        metadata: copied to the output.
        channels: "mix" or "separate"; None for the job's.
        file: size and version if a listing gave them; None to ask the store
            (`fingerprint.file_info`).
    """

    id: str
    uri: str
    language: str | None = None
    stages: tuple[Stage, ...] | None = None
    reference: str | None = None
    metadata: Mapping[str, JsonValue] = field(default_factory=dict)
    file: FileInfo | None = None
    speakers: SpeakerOptions | None = None
    channels: ChannelMode | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a recording has no transcript.

    Attributes:
        id: of the item.
        uri: of the item; secrets are removed before it is written anywhere.
        kind: error code, such as `corrupt_audio`, `not_found`, `read_error`.
        reason: a sentence in English.
        permanent: a retry would fail again unless the file changes.
        attempts: number of attempts in this run of the job.
        fingerprint: of the item when it failed; "" if its file was not reached.
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
    """Name and checksum of the weights of a model."""

    name: str
    checksum: str


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Processing times of a recording.

    The time of a stage is compute time; that of a batch is divided among its recordings in
    proportion to their audio.

    Attributes:
        segment_s: reading, decoding, VAD.
        recognize_s: its share of the recognizer's batches, and embedding its voices.
        punctuate_s: punctuation, and telling its speakers apart.
        wall_s: from the first byte read to the finished transcript.
    """

    segment_s: float
    recognize_s: float
    punctuate_s: float
    wall_s: float


@dataclass(frozen=True, slots=True)
class FinishedRecording:
    """A transcript, with how it was made.

    Attributes:
        item: as the source names it.
        fingerprint: `fingerprint.item_fingerprint` of content and configuration.
        transcript: of the whole recording; see `Transcript.partial` for failed spans.
        times: that it took.
        models: those that ran, by role.
        audio_s: length of the recording.
    """

    item: BatchItem
    fingerprint: str
    transcript: Transcript
    times: StageTimes
    models: Mapping[PackRole, PackIdentity]
    audio_s: float
