"""What each stage does with the audio."""

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
)
from serve_app.settings.engines import HybridSettings, WhisperSettings
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
    decode_block_s: float = Field(
        default=4.0,
        ge=0.5,
        le=120,
        description="Audio decoded and searched for speech before another recording has its "
        "turn, in s. A clip waits for one turn at most.",
    )
    urgent_s: float = Field(
        default=15.0,
        ge=0,
        description="The beginning of each recording, this many s of it, does not wait for the "
        "batches and turns of others that run, which pause for it: a clip overtakes files. So for "
        "VAD, punctuation and `recognizer.engine` paraformer, on CPUs. Not on GPUs, and not for "
        "the engines onnx, whispercpp and hybrid, which take one call at a time: a clip waits for "
        "the batch that runs there, about `recognizer.max_batch_s`. Whose turn it is still follows "
        "the fair shares. More than your clips are long gains nothing. 0 for never.",
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

    deployment: SegmenterDeploymentSettings = SegmenterDeploymentSettings()
    num_threads: int = Field(
        default=1,
        ge=1,
        description="Compute threads per replica. More than one rarely pays: add replicas.",
    )
    max_segment_s: float = Field(
        default=30.0,
        ge=2,
        le=60,
        description="Longest chunk for the recognizer in s; longer speech is divided in its "
        "quietest places.",
    )
    max_group_s: float = Field(
        default=30.0,
        ge=0,
        description="Chunks that are ready together travel in one call up to this much "
        "audio in s, which saves calls.",
    )
    gather_s: float = Field(
        default=20.0,
        ge=0.5,
        le=120,
        description="Audio whose chunks are gathered for one round of calls to the recognizer, "
        "in s; a recording's first chunks go at once. More makes fewer, larger calls.",
    )
    max_in_flight: int = Field(
        default=8,
        ge=1,
        description="Calls of one request in flight at the recognizer. Bounds memory and "
        "keeps a long file from crowding out short ones; at least twice the number of "
        "recognizer replicas lets one file use them all.",
    )
    silence_timeout_s: float = Field(
        default=60.0,
        ge=15,
        description="A recording whose segmenter gives no sign of life this long, in s, is "
        "started anew on another one. It gives one every 5 s.",
    )
    stuck_after_s: float = Field(
        default=120.0,
        ge=5,
        description="A segmenter that has been busy with one turn of `audio.decode_block_s` this "
        "long, in s, is replaced.",
    )


class _ModelSettings(Section):
    """Where a model computes."""

    device: str = Field(
        default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="cpu, cuda or cuda:N."
    )
    num_threads: int = Field(default=1, ge=1, description="Compute threads per replica on CPU.")
    warm_up_s: float = Field(
        default=60.0,
        ge=0,
        description="Longest time spent on CUDA graphs before a replica is ready, in s; the rest "
        "are made when they are first needed.",
    )
    max_graphs: int = Field(
        default=24, ge=0, description="CUDA graphs that a replica keeps; 0 for none."
    )
    max_batch_s: float | None = Field(
        default=1.0,
        gt=0,
        description="Longest time that one batch should take, in s; batches shrink to it by what "
        "the last ones took, down to one item. Who comes while a batch runs waits for its end, "
        "so this is about what a clip waits behind long files. Unset for full batches always.",
    )
    call_timeout_s: float = Field(
        default=600.0,
        ge=1,
        description="A call that is not answered within this many seconds, its time in the queue "
        "included, is made again elsewhere. The last resort: a replica that is stuck is found "
        "and replaced after `stuck_after_s`.",
    )
    stuck_after_s: float = Field(
        default=60.0,
        ge=1,
        description="A replica whose batch has been running this many seconds, and ten times as "
        "long as the last ones let expect, fails its health check and is replaced.",
    )


class RecognizerSettings(_ModelSettings):
    """The speech recognition model."""

    deployment: RecognizerDeploymentSettings = RecognizerDeploymentSettings()
    engine: Literal["paraformer", "onnx", "whispercpp", "hybrid"] = Field(
        default="paraformer",
        description="What runs the packs: `paraformer` on PyTorch, `onnx` on onnxruntime, "
        "`whispercpp` on whisper.cpp, `hybrid` a draft by whisper.cpp refined by Paraformer.",
    )
    pack: str = Field(
        default="paraformer-demo",
        description="Model pack of the recognizer; what a request gets by this name or an alias.",
    )
    other_packs: tuple[str, ...] = Field(
        default=(),
        description="Further packs that a request may name as `model`. They are loaded when they "
        "are first asked for, and given up for others when `models_bytes` is reached.",
    )
    models_bytes: int = Field(
        default=4 * 2**30,
        ge=1,
        description="Memory for the models of a replica in bytes: what their weights take in "
        "`dtype`, with `hybrid` those of both models. Working memory comes on top. Least recently "
        "used models make room for others.",
    )
    dtype: Literal["float32", "int8", "bfloat16", "float16"] = Field(
        default="float32",
        description="Of the matrix products. float32 is exact; int8 needs a CPU, is more than "
        "twice as fast on large models and changes few tokens; bfloat16 and float16 need a GPU, "
        "and float16 is checked for overflow when it is loaded.",
    )
    tokens_per_frame: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Room for tokens per encoder frame of 60 ms in a CUDA graph, averaged over a "
        "batch. A batch with more is run twice.",
    )
    max_batch_frames: int = Field(
        default=1000,
        ge=1,
        description="Budget of a batch in encoder frames of 60 ms. On CPUs more than about "
        "1,000 makes it slower; GPUs want tens of thousands.",
    )
    max_deaths: int = Field(
        default=2,
        ge=1,
        description="A chunk under which, running alone, this many replicas have died is given "
        "up; the transcript is partial and names its time range.",
    )
    languages: tuple[str, ...] = Field(
        default=("zh",),
        min_length=1,
        description="Values that `language` may have in a request. The first one is what the "
        "engines paraformer and onnx report where a request names none; whispercpp and hybrid "
        "report `whisper.language`, or what was guessed.",
    )
    unwritable_hotwords: Literal["report", "refuse"] = Field(
        default="report",
        description="What becomes of hotwords that the model's vocabulary cannot write: `report` "
        "leaves them out and names them in the header `X-Paraserve-Warnings`; `refuse` answers "
        "400.",
    )
    whisper: WhisperSettings = WhisperSettings()
    hybrid: HybridSettings = HybridSettings()

    @property
    def packs(self) -> tuple[str, ...]:
        """All packs that are served, the first one first."""
        return (self.pack, *self.other_packs)

    @property
    def models(self) -> dict[str, str]:
        """The packs by the names that callers know them by, the first one first.

        That of a directory is its last part: where it lies is nobody else's business.
        """
        return {shown_name(pack): pack for pack in self.packs}

    @property
    def default_language(self) -> str | None:
        """What is heard where a request names no language; None where that is guessed."""
        if self.engine not in ("whispercpp", "hybrid"):
            return self.languages[0]
        return None if self.whisper.language == GUESSED else self.whisper.language

    @model_validator(mode="after")
    def _languages_agree(self) -> RecognizerSettings:
        if self.engine not in ("whispercpp", "hybrid"):
            return self
        if GUESSED in self.languages:
            raise ValueError(
                "recognizer.languages names auto, which is no language; to have it guessed where "
                "a request names none set recognizer.whisper.language to auto"
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
                f"({', '.join(self.hybrid.languages)}), so that nothing would ever be refined: "
                "take recognizer.engine whispercpp"
            )
        return self

    @model_validator(mode="after")
    def _packs_differ(self) -> RecognizerSettings:
        if len(set(self.packs)) < len(self.packs):
            raise ValueError("recognizer.other_packs names a pack twice")
        if len(self.models) < len(self.packs):
            raise ValueError(
                "two of recognizer.pack and recognizer.other_packs have the same name for "
                "callers, which of a directory is its last part; rename one"
            )
        return self


class PunctuatorSettings(_ModelSettings):
    """The punctuation model."""

    deployment: PunctuatorDeploymentSettings = PunctuatorDeploymentSettings()
    pack: str = Field(default="ct-punc-demo", description="Model pack of the punctuation model.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32",
        description="Of the matrix products; bfloat16 and float16 need a GPU.",
    )
    max_batch_words: int = Field(
        default=2000, ge=20, description="Budget of a batch in words of 20-word windows."
    )
    sentence_break_s: float | None = Field(
        default=3.0,
        gt=0,
        description="A pause of this many seconds ends a sentence whatever the model says; "
        "unset for never.",
    )
