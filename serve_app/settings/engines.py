"""The engines of the recognizer that have settings of their own."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from serve_app.settings.section import Section


class WhisperSettings(Section):
    """whisper.cpp, for the engines `whispercpp` and `hybrid`; it computes on the CPU."""

    pack: str = Field(
        default="whisper-base",
        description="Pack of the drafts in `hybrid`: a ggml file of whisper.cpp's. `whispercpp` "
        "runs `recognizer.pack`.",
    )
    num_threads: int = Field(
        default=1, ge=1, description="Threads of a draft. More than one pays while cores are idle."
    )
    language: str = Field(
        default="zh",
        pattern=r"^(auto|[a-z]{2,3})$",
        description="What is spoken where a request names no `language`: Whisper's code of one of "
        "`recognizer.languages`, or `auto` to have it guess chunk by chunk, which takes a pass of "
        "its encoder more.",
    )
    simplified: bool = Field(
        default=True,
        description="Write Chinese, named or guessed, in simplified characters. Whisper mixes "
        "both scripts; needs opencc.",
    )
    word_times: Literal["attention", "even"] = Field(
        default="attention",
        description="`attention` reads the times of words off the model's attention; `even` "
        "spreads words over what was said, which is up to half a second off and saves CPU time.",
    )
    temperature_step: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Added to the temperature to decode a bad draft again, at random. 0 for "
        "never: the same audio always gives the same text.",
    )
    no_speech_threshold: float = Field(
        default=0.6,
        ge=0,
        le=1,
        description="A draft has no words if Whisper's no-speech probability exceeds this and "
        "its mean log-probability is under `log_probability_threshold`.",
    )
    log_probability_threshold: float = Field(
        default=-1.0, le=0, description="See `no_speech_threshold`."
    )


class HybridSettings(Section):
    """When `hybrid` refines a draft with the Paraformer of `recognizer.pack`."""

    languages: tuple[str, ...] = Field(
        default=("zh", "en"),
        min_length=1,
        description="What that Paraformer speaks, in Whisper's codes. A chunk in another language, "
        "named by the request or guessed, keeps its draft, keywords or not. The published packs "
        "know Mandarin and English.",
    )
    refine_unknown: bool = Field(
        default=False,
        description="Refine chunks whose language nobody named and Whisper could not guess, since "
        "their draft failed under `whisper.language` auto. Speech in another language would get "
        "a Mandarin text; without, such a chunk has none.",
    )
    min_mean_log_probability: float = Field(
        default=-0.4,
        le=0,
        description="Drafts with a lower mean log-probability are refined. Nearer to 0 refines "
        "more.",
    )
    max_compression_ratio: float = Field(
        default=2.4,
        gt=0,
        description="Drafts that zlib compresses more than this, since they repeat themselves, "
        "are refined.",
    )
    min_word_confidence: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Drafts with a word less certain than this are refined; 0 for never.",
    )
    refine_empty: bool = Field(
        default=True,
        description="Refine chunks in which the VAD heard speech and Whisper did not.",
    )
    min_gap_s: float | None = Field(
        default=1.0,
        gt=0,
        description="Sound of at least so many s in which a good draft has no word is heard again, "
        "as where Whisper keeps to one language and somebody speaks another; what Paraformer "
        "hears there is added. Unset for never.",
    )
    max_refined_share: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Most of the last audio of a replica that is refined because of doubts; "
        "failed drafts and keywords always are. With a bound, a result depends on what the "
        "replica heard before. Unset for no bound.",
    )
    share_period_s: float = Field(
        default=600.0, gt=0, description="How much audio counts as the last, in s."
    )
