"""How transcripts are split into subtitles."""

from __future__ import annotations

from pydantic import Field, model_validator

from serve_app.settings.section import Advanced, Section
from serve_app.transcript.subtitles import DEFAULT_SUBTITLES, SubtitleOptions


class SubtitleSettings(Section):
    """Defaults of the request fields `subtitle_...`, for srt and vtt."""

    max_chars: int | None = Field(
        default=DEFAULT_SUBTITLES.max_chars,
        ge=4,
        le=200,
        description="Maximum number of characters in a line; unset for 18 Chinese characters or "
        "42 Latin letters. For phones choose 12 to 16 Chinese characters.",
    )
    max_lines: int = Field(
        default=DEFAULT_SUBTITLES.max_lines,
        ge=1,
        le=4,
        description="Maximum number of lines of a subtitle.",
    )
    min_duration_s: Advanced[float] = Field(
        default=DEFAULT_SUBTITLES.min_duration_s,
        ge=0,
        le=10,
        allow_inf_nan=False,
        description="Minimum display time of a subtitle in s, unless the next one starts earlier.",
    )
    max_duration_s: Advanced[float] = Field(
        default=DEFAULT_SUBTITLES.max_duration_s,
        ge=1,
        le=60,
        allow_inf_nan=False,
        description="Maximum display time of a subtitle in s.",
    )
    max_cps: Advanced[float | None] = Field(
        default=DEFAULT_SUBTITLES.max_cps,
        ge=1,
        le=100,
        allow_inf_nan=False,
        description="Maximum reading speed in characters per second, without punctuation and "
        "spaces; a faster subtitle is shown longer, unless the next one starts. Unset for 9 "
        "Chinese characters or 17 Latin letters.",
    )

    @model_validator(mode="after")
    def _durations_ordered(self) -> SubtitleSettings:
        if self.min_duration_s > self.max_duration_s:
            raise ValueError("min_duration_s is larger than max_duration_s")
        return self

    def options(self) -> SubtitleOptions:
        """Returns the options of `transcript.subtitles`."""
        return SubtitleOptions(**self.model_dump())
