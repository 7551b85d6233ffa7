"""Audio and the stages that it passes: VAD, segmenter, recognizer, punctuator, speakers."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from serve_app.core.languages import GUESSED
from serve_app.packs.registry import shown_name
from serve_app.settings.deployments import (
    PunctuatorDeploymentSettings,
    RecognizerDeploymentSettings,
    SegmenterDeploymentSettings,
    SpeakerEmbedderDeploymentSettings,
)
from serve_app.settings.engines import HybridSettings, WhisperSettings
from serve_app.settings.section import Advanced, Section


class AudioSettings(Section):
    """Accepted audio, and how it is decoded."""

    max_upload_bytes: int = Field(
        default=600 * 2**20,
        ge=1024,
        description="Maximum size of an upload in bytes. The default holds five hours of WAV with "
        "16 kHz, the default `audio.max_duration_s`.",
    )
    max_duration_s: float = Field(
        default=5 * 3600.0,
        gt=0,
        description="Maximum duration of a recording in s.",
    )
    max_separate_channels: int = Field(
        default=2,
        ge=1,
        le=8,
        description="Maximum number of channels of a recording whose channels are recognized "
        "separately (`channels=separate`). Each costs as much as a recording of its own; raise it "
        "for meetings with a microphone for each speaker.",
    )
    min_duration_s: Advanced[float] = Field(
        default=0.1,
        ge=0,
        description="Minimum duration of a recording in s; shorter ones are refused.",
    )
    decode_block_s: Advanced[float] = Field(
        default=4.0,
        ge=0.5,
        le=120,
        description="Audio in s that is decoded and searched for speech before the segmenter "
        "switches to another recording. A clip waits for one block at most; smaller blocks cost "
        "some throughput.",
    )
    urgent_s: Advanced[float] = Field(
        default=15.0,
        ge=0,
        description="The first seconds of each recording, up to this many, do not wait for the "
        "batches and blocks of other recordings, which pause for them: clips overtake long files. "
        "Applies to VAD, punctuation and the engine `paraformer` on CPUs. On GPUs and with the "
        "other engines, a clip waits for the running batch, about `recognizer.max_batch_s`. Fair "
        "shares still hold. A value above the duration of your clips gains nothing; 0 disables it.",
    )
    spool_dir: Path | None = Field(
        default=None,
        description="Directory for uploads in progress, kept as unnamed files that vanish with "
        "their request; unset for the system's temporary directory. It needs room for "
        "`admission.max_bytes`.",
    )


class VadSettings(Section):
    """The voice activity detector; runs in the segmenter."""

    pack: Advanced[str] = Field(
        default="fsmn-vad",
        description="Model pack of the VAD.",
    )
    max_end_silence_ms: Advanced[int] = Field(
        default=800,
        ge=100,
        le=6000,
        description="Silence in ms that ends a speech segment. A lower value gives shorter "
        "segments.",
    )


class SegmenterSettings(Section):
    """The segmenter: decoding, VAD and fan-out."""

    deployment: SegmenterDeploymentSettings = SegmenterDeploymentSettings()
    num_threads: Advanced[int] = Field(
        default=1,
        ge=1,
        description="Number of compute threads per replica. More than one rarely helps; add "
        "replicas instead.",
    )
    max_segment_s: Advanced[float] = Field(
        default=30.0,
        ge=2,
        le=60,
        description="Maximum duration of a chunk in s; longer speech is split at its quietest "
        "points.",
    )
    max_group_s: Advanced[float] = Field(
        default=30.0,
        ge=0,
        description="Chunks that are ready together are sent in one call, up to this much audio "
        "in s. More makes fewer calls.",
    )
    gather_s: Advanced[float] = Field(
        default=20.0,
        ge=0.5,
        le=120,
        description="Audio in s whose chunks are collected before they are sent to the "
        "recognizer; the first chunks of a recording are sent at once. More makes fewer, larger "
        "calls.",
    )
    max_in_flight: int = Field(
        default=8,
        ge=1,
        description="Maximum number of calls of one request in flight at the recognizer. It "
        "bounds memory and keeps a long file from crowding out short ones. At least twice the "
        "number of recognizer replicas lets one file use all of them.",
    )
    stuck_after_s: Advanced[float] = Field(
        default=120.0,
        ge=5,
        description="Time in s after which a segmenter that is still busy with one block of "
        "`audio.decode_block_s` is replaced.",
    )


class _ModelSettings(Section):
    """Device and batches of a model."""

    device: str = Field(
        default="cpu",
        pattern=r"^(cpu|cuda(:\d+)?)$",
        description="Device of the model: cpu, cuda or cuda:N.",
    )
    num_threads: int = Field(
        default=1,
        ge=1,
        description="Number of compute threads per replica on CPUs.",
    )
    max_batch_s: float | None = Field(
        default=1.0,
        gt=0,
        description="Target for the maximum compute time of a batch in s; batches shrink to meet "
        "it. A clip waits for the running batch, so a lower value answers clips sooner and costs "
        "throughput. Unset for full batches.",
    )
    call_timeout_s: Advanced[float] = Field(
        default=600.0,
        ge=1,
        description="Time in s, queueing included, after which an unanswered call is repeated on "
        "another replica. A last resort: `stuck_after_s` detects stuck replicas sooner.",
    )
    stuck_after_s: Advanced[float] = Field(
        default=60.0,
        ge=1,
        description="A replica whose batch runs for this many seconds, and for ten times its "
        "expected duration, fails its health check and is replaced.",
    )


class _GraphedModelSettings(_ModelSettings):
    """Device, batches and CUDA graphs of a model."""

    warm_up_s: Advanced[float] = Field(
        default=60.0,
        ge=0,
        description="Maximum time in s spent on capturing CUDA graphs before a replica is ready; "
        "the rest are captured when they are first needed.",
    )
    max_graphs: Advanced[int] = Field(
        default=24,
        ge=0,
        description="Maximum number of CUDA graphs that a replica keeps; 0 disables them.",
    )


class RecognizerSettings(_GraphedModelSettings):
    """The speech recognition model."""

    deployment: RecognizerDeploymentSettings = RecognizerDeploymentSettings()
    engine: Literal["paraformer", "onnx", "whispercpp", "hybrid"] = Field(
        default="paraformer",
        description="Engine of the recognizer: `paraformer` (PyTorch), `onnx` (onnxruntime), "
        "`whispercpp` (whisper.cpp), or `hybrid`, in which Paraformer refines drafts of "
        "whisper.cpp.",
    )
    pack: str = Field(
        default="paraformer-demo",
        description="Model pack of the recognizer, and the default model of requests.",
    )
    other_packs: tuple[str, ...] = Field(
        default=(),
        description="Further model packs that a request may select with `model`. They are loaded "
        "on first use and evicted when `models_bytes` is exceeded.",
    )
    models_bytes: int = Field(
        default=4 * 2**30,
        ge=1,
        description="Memory in bytes for the weights of a replica's loaded models, in `dtype`, "
        "with both models of `hybrid`. Working memory is extra. The least recently used models "
        "are evicted first.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "int8", "float16"] = Field(
        default="float32",
        description="Precision of the matrix products. float32 is exact. bfloat16 needs a GPU or a "
        "CPU with AVX512-BF16 or AMX, takes a little more than half the time on large models and "
        "changes very few tokens. auto is bfloat16 on such a device and float32 elsewhere. int8 "
        "needs a CPU, is the fastest there and changes more tokens. float16 needs a GPU and is "
        "checked for overflow when it is loaded. Sums, norms, softmax and scores are in float32.",
    )
    max_batch_frames: int = Field(
        default=1000,
        ge=1,
        description="Maximum size of a batch in encoder frames of 60 ms. On CPUs more than about "
        "1,000 is slower; GPUs need tens of thousands.",
    )
    max_deaths: Advanced[int] = Field(
        default=2,
        ge=1,
        description="Number of replicas that may die while they process the same chunk alone. "
        "Then the chunk is given up; the transcript is partial and names its time range.",
    )
    languages: tuple[str, ...] = Field(
        default=("zh",),
        min_length=1,
        description="Values of `language` that requests may use. Requests without one get the "
        "first with the engines `paraformer` and `onnx`, and `whisper.language` or the detected "
        "language with the others.",
    )
    unwritable_hotwords: Advanced[Literal["report", "refuse"]] = Field(
        default="report",
        description="Hotwords that the model's vocabulary cannot write: `report` ignores them and "
        "lists them in the header `X-Paraserve-Warnings`; `refuse` answers 400.",
    )
    whisper: WhisperSettings = WhisperSettings()
    hybrid: HybridSettings = HybridSettings()

    @property
    def packs(self) -> tuple[str, ...]:
        """All packs that are served; the first is the default."""
        return (self.pack, *self.other_packs)

    @property
    def models(self) -> dict[str, str]:
        """The packs by the names that callers use; the first is the default.

        A directory is named by its last component, so that callers do not learn its path.
        """
        return {shown_name(pack): pack for pack in self.packs}

    @property
    def default_language(self) -> str | None:
        """Language of requests that name none; None if it is detected."""
        if self.engine not in ("whispercpp", "hybrid"):
            return self.languages[0]
        return None if self.whisper.language == GUESSED else self.whisper.language

    @model_validator(mode="after")
    def _languages_agree(self) -> RecognizerSettings:
        if self.engine not in ("whispercpp", "hybrid"):
            return self
        if GUESSED in self.languages:
            raise ValueError(
                "recognizer.languages contains auto, which is no language; to detect the language "
                "of requests that name none, set recognizer.whisper.language to auto"
            )
        default = self.default_language
        if default is not None and default not in self.languages:
            raise ValueError(
                f"recognizer.whisper.language is {default}, which is not among "
                f"recognizer.languages ({', '.join(self.languages)}): add it there"
            )
        refinable = set(self.languages) & set(self.hybrid.languages)
        if self.engine == "hybrid" and default is not None and not refinable:
            raise ValueError(
                "none of recognizer.languages is in recognizer.hybrid.languages "
                f"({', '.join(self.hybrid.languages)}), so nothing would ever be refined: "
                "use recognizer.engine whispercpp"
            )
        return self

    @model_validator(mode="after")
    def _packs_differ(self) -> RecognizerSettings:
        if len(set(self.packs)) < len(self.packs):
            raise ValueError("recognizer.other_packs names a pack twice")
        if len(self.models) < len(self.packs):
            raise ValueError(
                "two of recognizer.pack and recognizer.other_packs have the same name for "
                "callers (a directory is named by its last component); rename one"
            )
        return self


class PunctuatorSettings(_GraphedModelSettings):
    """The punctuation model."""

    deployment: PunctuatorDeploymentSettings = PunctuatorDeploymentSettings()
    pack: str = Field(
        default="ct-punc-demo",
        description="Model pack of the punctuation model.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="float32",
        description="Precision of the matrix products, as in `recognizer.dtype`.",
    )
    max_batch_words: int = Field(
        default=2000,
        ge=20,
        description="Maximum size of a batch in words, in windows of 20 words. GPUs need about "
        "20,000.",
    )
    sentence_break_s: Advanced[float | None] = Field(
        default=3.0,
        gt=0,
        description="Pause in s that always ends a sentence, whatever the model predicts; unset "
        "for never.",
    )


class SpeakerEmbedderSettings(_ModelSettings):
    """The speaker model, for the stage `speakers`."""

    deployment: SpeakerEmbedderDeploymentSettings = SpeakerEmbedderDeploymentSettings()
    pack: str = Field(
        default="campplus-zh-en",
        description="Model pack of the speaker model.",
    )
    dtype: Advanced[Literal["auto", "float32", "bfloat16"]] = Field(
        default="auto",
        description="Precision of the matrix products, as in `recognizer.dtype`; bfloat16 only on "
        "CPUs. It changes an embedding by less than 0.001 in cosine, and no number of speakers in "
        "what was measured.",
    )
    max_batch_windows: Advanced[int] = Field(
        default=128,
        ge=1,
        description="Maximum size of a batch in windows of 1.5 s, one for each 0.75 s of speech.",
    )
