"""How a language is named."""

from __future__ import annotations

GUESSED = "auto"
"""Stands for a language that is to be guessed; whisper.cpp's own name for that."""


def language_code(name: str) -> str:
    """Returns the bare code of a language: `zh` for `zh`, `zh-CN` and `ZH_cn` alike.

    Models tell languages apart and not regions, so what follows the code does not count.
    Source: BCP 47 puts the language first and a hyphen after it; POSIX locales an underscore.
    """
    return name.strip().lower().replace("_", "-").split("-")[0]
