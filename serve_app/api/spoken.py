"""The fields `language` and `languages`."""

from __future__ import annotations

from typing import Protocol

from serve_app.api.fields import meant_name
from serve_app.core.errors import InvalidParameter
from serve_app.core.languages import GUESSED, NAMES_OF_LANGUAGES, language_code, names_a_language

_MAX_SHOWN_LETTERS = 64


class SpokenOffer(Protocol):
    """What a deployment can hear, and how strict it is."""

    @property
    def languages(self) -> tuple[str, ...]: ...

    @property
    def default_language(self) -> str | None: ...

    @property
    def guesses_language(self) -> bool: ...

    @property
    def unknown_fields(self) -> str: ...


def parse_language(name: str, value: str, offer: SpokenOffer) -> str | None:
    """Returns the code of a language that is asked for, and GUESSED where it is to be guessed.

    None where the value says nothing: it is to be guessed and nothing here guesses, or it is
    neither a code nor a name of a language, and that is not refused here.

    Raises:
        InvalidParameter: the language is not served, or its name is misspelled or, where
            that is wanted, unknown.
    """
    code = language_code(value)
    if code == GUESSED:
        return GUESSED if offer.guesses_language else offer.default_language or GUESSED
    if code in offer.languages:
        return code
    shown = repr(value.strip()[:_MAX_SHOWN_LETTERS])
    served = ", ".join(offer.languages)
    if names_a_language(value):
        raise InvalidParameter(name, f"{shown} is not among those of this model: {served}")
    meant = meant_name(value, NAMES_OF_LANGUAGES) if value.isascii() else None
    if meant is not None:
        raise InvalidParameter(name, f"is {shown}; did you mean {meant}?")
    if offer.unknown_fields == "refuse":
        raise InvalidParameter(name, f"is {shown}, which is not a language; served: {served}")
    return None
