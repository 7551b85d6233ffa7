"""Replacements in the text of every transcript."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from serve_app.core.errors import ConfigurationError
from serve_app.settings.section import Section
from serve_app.transcript.itn import (
    Replacement,
    check_replacements,
    merge_replacements,
    parse_replacements,
)


class TextSettings(Section):
    """Phrases that are replaced in every transcript."""

    replacements: dict[str, str] = Field(
        default={},
        description="Phrases and their replacements, such as {云梯: 云T}, for names that the model "
        "gets wrong. A request can add its own.",
    )
    replacements_file: Path | None = Field(
        default=None,
        description="UTF-8 file with further replacements, one `wrong=>right` per line. It is "
        "read at startup.",
    )

    @field_validator("replacements")
    @classmethod
    def _are_phrases(cls, replacements: dict[str, str]) -> dict[str, str]:
        check_replacements(replacements)
        return replacements

    def all_replacements(self) -> tuple[Replacement, ...]:
        """Returns the replacements of the settings, then those of the file.

        Raises:
            ConfigurationError: the file cannot be read or is not a list of replacements.
        """
        inline = check_replacements(self.replacements)
        if self.replacements_file is None:
            return inline
        try:
            text = self.replacements_file.read_text(encoding="utf-8-sig")
            return merge_replacements(inline, parse_replacements(text))
        except OSError as error:
            raise ConfigurationError(
                f"text.replacements_file {self.replacements_file}: {error.strerror}"
            ) from None
        except ValueError as error:
            raise ConfigurationError(
                f"text.replacements_file {self.replacements_file} {error}"
            ) from None
