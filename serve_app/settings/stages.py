"""What each stage does with the audio."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from serve_app.settings.deployments import (
    PunctuatorDeployment,
    RecognizerDeployment,
    SegmenterDeployment,
)
from serve_app.settings.section import Section


class AudioSettings(Section):
    """What audio is accepted and how it is read."""

    max_upload_bytes: int = Field(
        default=50 * 2**20, ge=1024, description="Largest upload in bytes."
    )
    max_duration_s: float = Field(default=5 * 3600.0, gt=0, description="Longest recording in s.")
    min_duration_s: float = Field(
        default=0.1, ge=0, description="Shortest recording in s; less is refused."
    )
    window_s: float = Field(
        default=20.0,
        ge=0.5,
        le=120,
        description="Audio decoded at a time, in s. Larger windows make fewer, larger calls "
        "to the recogniser; the first text comes a little later.",
    )
    spool_dir: Path | None = Field(
        default=None,
        description="Directory for uploads while they are being worked on, as unnamed files "
        "that vanish with their request; unset for the system's temporary directory.",
    )


class VadSettings(Section):
    """The voice activity detector; runs in the segmenter."""

    pack: str = Field(default="fsmn-vad", description="Model pack of the VAD.")
    max_end_silence_ms: int = Field(
        default=800,
        ge=100,
        le=6000,
        description="Silence that ends a segment, in ms. Smaller gives shorter segments.",
    )


class SegmenterSettings(Section):
    """Decoding, VAD and fan-out."""

    deployment: SegmenterDeployment = SegmenterDeployment()
    num_threads: int = Field(
        default=1,
        ge=1,
        description="Compute threads per replica. More than one rarely pays: add replicas.",
    )
    max_segment_s: float = Field(
        default=30.0,
        ge=2,
        le=60,
        description="Longest chunk for the recogniser in s; longer speech is divided in its "
        "quietest places.",
    )
    max_group_s: float = Field(
        default=30.0,
        ge=0,
        description="Chunks that are ready together travel in one call up to this much "
        "audio in s, which saves calls.",
    )
    window: int = Field(
        default=8,
        ge=1,
        description="Calls of one request in flight at the recogniser. Bounds memory and "
        "keeps a long file from crowding out short ones; at least twice the number of "
        "recogniser replicas lets one file use them all.",
    )


class _ModelSettings(Section):
    """Where a model computes."""

    device: str = Field(
        default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="cpu, cuda or cuda:N."
    )
    num_threads: int = Field(default=1, ge=1, description="Compute threads per replica on CPU.")


class RecognizerSettings(_ModelSettings):
    """The speech recognition model."""

    deployment: RecognizerDeployment = RecognizerDeployment()
    pack: str = Field(default="paraformer-demo", description="Model pack of the recogniser.")
    dtype: Literal["float32", "int8"] = Field(
        default="float32",
        description="float32 is exact; int8 needs a CPU, is more than twice as fast on large "
        "models and changes few tokens.",
    )
    max_batch_frames: int = Field(
        default=1000,
        ge=1,
        description="Budget of a batch in encoder frames of 60 ms. On CPUs more than about "
        "1,000 makes it slower; GPUs want tens of thousands.",
    )
    languages: tuple[str, ...] = Field(
        default=("zh",), description="Values that `language` may have in a request."
    )


class PunctuatorSettings(_ModelSettings):
    """The punctuation model."""

    deployment: PunctuatorDeployment = PunctuatorDeployment()
    pack: str = Field(default="ct-punc-demo", description="Model pack of the punctuation model.")
    max_batch_words: int = Field(
        default=2000, ge=20, description="Budget of a batch in words of 20-word windows."
    )
    sentence_break_s: float | None = Field(
        default=3.0,
        gt=0,
        description="A pause of this many seconds ends a sentence whatever the model says; "
        "unset for never.",
    )
