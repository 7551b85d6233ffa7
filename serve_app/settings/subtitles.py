"""How subtitles are divided into cues, by the service's defaults or by a request."""

from __future__ import annotations

from pydantic import Field, model_validator

from serve_app.settings.section import Section
from serve_app.transcript.subtitles import DEFAULT_SUBTITLES, SubtitleOptions


class SubtitleSettings(Section):
    """Cues of srt and vtt, where a request does not say otherwise (`subtitle_...` fields)."""

    max_chars: int | None = Field(
        default=DEFAULT_SUBTITLES.max_chars,
        ge=4,
        le=200,
        description="Characters in a line of a subtitle; unset for 18 Chinese characters or 42 "
        "Latin letters. Players of phones want fewer, 12 to 16 Chinese ones.",
    )
    max_lines: int = Field(
        default=DEFAULT_SUBTITLES.max_lines, ge=1, le=4, description="Lines of a subtitle."
    )
    min_duration_s: float = Field(
        default=DEFAULT_SUBTITLES.min_duration_s,
        ge=0,
        le=10,
        allow_inf_nan=False,
        description="Time in s that a subtitle is shown at least, where the next one leaves it "
        "that time.",
    )
    max_duration_s: float = Field(
        default=DEFAULT_SUBTITLES.max_duration_s,
        ge=1,
        le=60,
        allow_inf_nan=False,
        description="Time in s that a subtitle is shown at most.",
    )
    max_cps: float | None = Field(
        default=DEFAULT_SUBTITLES.max_cps,
        ge=1,
        le=100,
        allow_inf_nan=False,
        description="Characters a second, marks and spaces not counted, that a reader can follow; "
        "a subtitle with more is shown for longer, where the next one leaves it that time. "
        "Unset for 9 Chinese characters or 17 Latin letters.",
    )

    @model_validator(mode="after")
    def _durations_ordered(self) -> SubtitleSettings:
        if self.min_duration_s > self.max_duration_s:
            raise ValueError("min_duration_s is larger than max_duration_s")
        return self

    def options(self) -> SubtitleOptions:
        """The same for `transcript.subtitles`."""
        return SubtitleOptions(**self.model_dump())
