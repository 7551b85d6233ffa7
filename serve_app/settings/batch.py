"""Batch jobs: what they may use, and how they read and write."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field

from serve_app.settings.section import NumGpus, Section

TextFormat: TypeAlias = Literal["srt", "vtt", "txt"]
"""What may be written beside the JSON of a recording."""


class BatchPool(Section):
    """The actors of one stage of a batch job."""

    num_actors: int = Field(default=1, ge=1, description="Actors of this stage.")
    num_cpus: float = Field(
        default=0.5,
        ge=0,
        description="Cores that Ray reserves per actor. The job waits until all of them are free.",
    )
    num_gpus: NumGpus = Field(
        default=0.0,
        description="GPUs, or the fraction of one, that Ray reserves per actor.",
    )


class RecognizerPool(BatchPool):
    num_cpus: float = Field(default=1.0, ge=0, description="Cores that Ray reserves per actor.")
    blocks_in_flight: int = Field(
        default=4,
        ge=1,
        description="Blocks of `batch.block_bytes` that each recognizer holds at once. Its batches "
        "are filled from them, so together they should hold several batches: 4 MiB are about two "
        "minutes of speech, GPUs want tens of minutes.",
    )


class PunctuatorPool(BatchPool):
    num_cpus: float = Field(default=0.25, ge=0, description="Cores that Ray reserves per actor.")


class BatchSettings(Section):
    """Transcription of many recordings as a job."""

    resources: Literal["own", "serve"] = Field(
        default="own",
        description="`own` starts actors for the job and takes what they need from the cluster; "
        "`serve` has the running application recognize and punctuate whenever it has nothing else "
        "to do, so that only decoding takes cores of the job's own.",
    )
    formats: tuple[TextFormat, ...] = Field(
        default=(), description="What is written beside each recording's JSON: srt, vtt, txt."
    )
    itn: bool = Field(
        default=False,
        description="Write Mandarin numbers, dates and amounts in digits, as `itn` of the HTTP API "
        "does; times stay those of what was said.",
    )
    accept_failures: bool = Field(
        default=False,
        description="The job ends with exit code 0, not 3, where its only failures are recordings "
        "that trying again does not help. They are in failures.jsonl and in the report all the "
        "same. For schedulers that take every other code for a job to be run again.",
    )
    segmenters: BatchPool = BatchPool()
    recognizers: RecognizerPool = RecognizerPool()
    punctuators: PunctuatorPool = PunctuatorPool()
    open_recordings: int = Field(
        default=4,
        ge=1,
        le=64,
        description="Recordings that each segmenter has open at once. They take turns, so that a "
        "long one does not hold up short ones; more keeps slow storage from being waited for.",
    )
    room_timeout_s: float | None = Field(
        default=1800.0,
        gt=0,
        description="Longest time in s that a job waits while the cluster has fewer cores than "
        "the job's actors reserve, as after a node has died; then it fails, to be resumed. null "
        "waits forever.",
    )
    block_bytes: int = Field(
        default=4 * 2**20,
        ge=64 * 2**10,
        le=128 * 2**20,
        description="Audio that travels from segmenters to recognizers in one piece, in bytes; a "
        "second of audio is 32,000.",
    )
    object_store_bytes: int = Field(
        default=256 * 2**20,
        ge=32 * 2**20,
        description="Shared memory that audio may take on its way from segmenters to recognizers, "
        "in bytes, over the whole cluster; segmenters wait when it is used up.",
    )
    read_range_bytes: int = Field(
        default=1 * 2**20,
        ge=64 * 2**10,
        description="What is fetched from a bucket or server at once, in bytes; what is held of a "
        "recording does not depend on its length.",
    )
    read_attempts: int = Field(
        default=5,
        ge=1,
        description="Tries of a read that fails for a reason that may pass, with growing pauses; "
        "after them the recording fails and is tried again by the next run.",
    )
    serve_in_flight: int = Field(
        default=1,
        ge=1,
        description="With `serve`: calls that each segmenter has at the recognizer at once, over "
        "all its recordings. As many as there are recognizer replicas use all that is left of "
        "them; fewer leave more to callers.",
    )
    log_interval_s: float = Field(
        default=10.0, ge=1, description="Time in s between two lines of progress in the log."
    )
    jobs_address: str = Field(
        default="http://127.0.0.1:8265",
        description="Ray's dashboard, where `paraserve batch` submits jobs.",
    )
    jobs_token_file: Path | None = Field(
        default=None,
        description="File with the token that Ray asks for; unset where it asks for none.",
    )
