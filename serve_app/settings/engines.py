"""Settings of the recognizer's engines `whispercpp` and `hybrid`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from serve_app.settings.section import Advanced, Section


class WhisperSettings(Section):
    """whisper.cpp, for the engines `whispercpp` and `hybrid`; it runs on the CPU."""

    pack: str = Field(
        default="whisper-base",
        description="Model pack of the drafts with `hybrid`: a ggml file of whisper.cpp. "
        "`whispercpp` uses `recognizer.pack`.",
    )
    num_threads: Advanced[int] = Field(
        default=1,
        ge=1,
        description="Number of compute threads per draft. More than one helps only while cores "
        "are idle.",
    )
    language: str = Field(
        default="zh",
        pattern=r"^(auto|[a-z]{2,3})$",
        description="Language of requests that name none: Whisper's code of one of "
        "`recognizer.languages`, or `auto` to detect it for each chunk, which costs another "
        "encoder pass.",
    )
    simplified: Advanced[bool] = Field(
        default=True,
        description="Convert Chinese text to simplified characters. Whisper mixes both scripts. "
        "Needs opencc.",
    )
    word_times: Advanced[Literal["attention", "even"]] = Field(
        default="attention",
        description="`attention` takes word times from the model's attention; `even` spreads the "
        "words evenly, which is off by up to half a second and saves CPU time.",
    )
    temperature_step: Advanced[float] = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Increase of the sampling temperature for each retry of a bad draft. Retries "
        "are random; 0 disables them, so that the same audio always gives the same text.",
    )
    no_speech_threshold: Advanced[float] = Field(
        default=0.6,
        ge=0,
        le=1,
        description="A draft is empty if Whisper's no-speech probability exceeds this and its "
        "mean log-probability is below `log_probability_threshold`.",
    )
    log_probability_threshold: Advanced[float] = Field(
        default=-1.0,
        le=0,
        description="See `no_speech_threshold`.",
    )


class HybridSettings(Section):
    """When `hybrid` recognizes a draft again with the Paraformer of `recognizer.pack`."""

    languages: Advanced[tuple[str, ...]] = Field(
        default=("zh", "en"),
        min_length=1,
        description="Languages of the Paraformer pack, as Whisper's codes. Chunks in another "
        "language, named or detected, keep their draft, even with keywords. The published packs "
        "know Mandarin and English.",
    )
    refine_unknown: Advanced[bool] = Field(
        default=False,
        description="Refine chunks whose language is not named and could not be detected, because "
        "their draft failed under `whisper.language` `auto`. Speech in another language then gets "
        "a Mandarin text; otherwise such chunks stay empty.",
    )
    min_mean_log_probability: Advanced[float] = Field(
        default=-0.4,
        le=0,
        description="Drafts with a lower mean log-probability are refined. A value nearer to 0 "
        "refines more.",
    )
    max_compression_ratio: Advanced[float] = Field(
        default=2.4,
        gt=0,
        description="Drafts with a higher zlib compression ratio, which repeat themselves, are "
        "refined. A lower value refines more.",
    )
    min_word_confidence: Advanced[float] = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Drafts with a word of lower confidence are refined. 0 disables this check.",
    )
    refine_empty: Advanced[bool] = Field(
        default=True,
        description="Refine chunks in which the VAD found speech and Whisper did not.",
    )
    min_gap_s: Advanced[float | None] = Field(
        default=1.0,
        gt=0,
        description="Sound of at least this duration in s without a word in a good draft is "
        "recognized again by Paraformer, and its words are added. This finds speech in a second "
        "language. Unset to disable.",
    )
    max_refined_share: Advanced[float | None] = Field(
        default=None,
        ge=0,
        le=1,
        description="Maximum share of a replica's recent audio (600 s) that is refined because of "
        "doubts; failed drafts and keywords are always refined. With a limit, a result depends on "
        "earlier requests. Unset for no limit.",
    )
