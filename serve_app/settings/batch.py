"""Batch jobs: their resources, input and output."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field, field_validator

from serve_app.core.speakers import SpeakerOptions, parse_speaker_numbers
from serve_app.settings.section import Advanced, NumGpus, Section

TextFormat: TypeAlias = Literal["srt", "vtt", "txt"]
"""Formats that can be written beside the JSON of a recording."""

Layout: TypeAlias = Literal["mirror", "hashed"]
"""How the paths of results are derived from the ids of recordings."""


class BatchPool(Section):
    """The actors of one stage of a batch job."""

    num_actors: int = Field(
        default=1,
        ge=1,
        description="Number of actors of this stage.",
    )
    num_cpus: float = Field(
        default=0.5,
        ge=0,
        description="CPU cores that Ray reserves per actor. The job waits until all of them are "
        "free.",
    )
    num_gpus: NumGpus = Field(
        default=0.0,
        description="GPUs, or the fraction of one, that Ray reserves per actor.",
    )


class RecognizerPool(BatchPool):
    num_cpus: float = Field(
        default=1.0,
        ge=0,
        description="CPU cores that Ray reserves per actor. The job waits until all of them are "
        "free.",
    )
    blocks_in_flight: Advanced[int] = Field(
        default=4,
        ge=1,
        description="Number of blocks of `batch.block_bytes` that each recognizer holds at once. "
        "Batches are filled from them, so together they should hold several batches: 4 MiB are "
        "about two minutes of speech, and GPUs need tens of minutes.",
    )


class PunctuatorPool(BatchPool):
    num_cpus: float = Field(
        default=0.25,
        ge=0,
        description="CPU cores that Ray reserves per actor. The job waits until all of them are "
        "free.",
    )


class BatchSettings(Section):
    """Batch transcription."""

    resources: Literal["own", "serve"] = Field(
        default="own",
        description="`own` starts actors for the job and reserves their resources in the cluster; "
        "`serve` uses the idle capacity of the running service for recognition and punctuation, "
        "so that only decoding needs cores of its own.",
    )
    formats: tuple[TextFormat, ...] = Field(
        default=(),
        description="Text formats written beside each recording's JSON: srt, vtt, txt.",
    )
    layout: Layout = Field(
        default="mirror",
        description="Folders of a new output: `mirror` has those of the source, `hashed` spreads "
        "results over 256 folders, for millions of recordings. An output keeps the layout with "
        "which it was begun.",
    )
    itn: bool = Field(
        default=False,
        description="Write Mandarin numbers, dates and amounts in digits, as `itn` of the HTTP "
        "API does. Word times do not change.",
    )
    speakers: str | None = Field(
        default=None,
        description="Number of speakers of each recording, such as 2, or a range such as 2-4, for "
        "jobs with the stage `speakers`; a manifest may name it for a recording as `num_speakers`. "
        "Unset if it is not known.",
    )
    channels: Literal["mix", "separate"] = Field(
        default="mix",
        description="What to recognize of recordings with several channels: their `mix`, or each "
        "channel for itself, up to `audio.max_separate_channels`; a manifest may say so for a "
        "recording. Subtitles then name the channel.",
    )
    accept_failures: Advanced[bool] = Field(
        default=False,
        description="Exit with code 0 instead of 3 if the only failures are recordings that a "
        "retry cannot help. They are still listed in failures.jsonl and in the report. For "
        "schedulers that restart a job after any other exit code.",
    )
    segmenters: BatchPool = BatchPool()
    recognizers: RecognizerPool = RecognizerPool()
    punctuators: PunctuatorPool = PunctuatorPool()
    open_recordings: Advanced[int] = Field(
        default=4,
        ge=1,
        le=64,
        description="Number of recordings that each segmenter reads at once. A long one then does "
        "not hold up short ones; more hides the latency of slow storage.",
    )
    room_timeout_s: Advanced[float | None] = Field(
        default=1800.0,
        gt=0,
        description="Maximum time in s that a job waits while the cluster has fewer cores than "
        "its actors reserve, for example after the loss of a node. Then it fails and can be "
        "resumed. null waits forever.",
    )
    block_bytes: Advanced[int] = Field(
        default=4 * 2**20,
        ge=64 * 2**10,
        le=128 * 2**20,
        description="Size in bytes of the pieces of audio sent from segmenters to recognizers. A "
        "second of audio is 32,000 bytes.",
    )
    object_store_bytes: Advanced[int] = Field(
        default=256 * 2**20,
        ge=32 * 2**20,
        description="Shared memory in bytes, over the whole cluster, for audio between segmenters "
        "and recognizers. Segmenters wait when it is full.",
    )
    read_attempts: Advanced[int] = Field(
        default=5,
        ge=1,
        description="Number of attempts at a read that fails for a temporary reason, with "
        "increasing pauses. Then the recording fails, and the next run retries it.",
    )
    serve_in_flight: Advanced[int] = Field(
        default=1,
        ge=1,
        description="With `resources` `serve`: number of calls that each segmenter has in flight "
        "at the recognizer. As many as there are recognizer replicas use all idle capacity; fewer "
        "leave more to other callers.",
    )
    log_interval_s: Advanced[float] = Field(
        default=10.0,
        ge=1,
        description="Interval in s between progress lines in the log.",
    )
    jobs_address: str = Field(
        default="http://127.0.0.1:8265",
        description="Address of the Ray dashboard to which `paraserve batch` submits jobs.",
    )
    jobs_token_file: Path | None = Field(
        default=None,
        description="File with the authentication token of the Ray cluster; unset if it needs "
        "none.",
    )

    @field_validator("speakers")
    @classmethod
    def _speakers_in_bounds(cls, speakers: str | None) -> str | None:
        if speakers is not None:
            parse_speaker_numbers(speakers)
        return speakers

    def speaker_options(self) -> SpeakerOptions:
        """Returns what is known about the speakers of each recording."""
        return SpeakerOptions() if self.speakers is None else parse_speaker_numbers(self.speakers)
