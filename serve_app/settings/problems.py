"""Error messages about settings."""

from __future__ import annotations

from pydantic import ValidationError
from rapidfuzz import fuzz, process

from serve_app.settings.listing import all_settings, section_names

_MIN_SIMILARITY = 70.0
"""In percent; a name at least this similar to a setting is taken for a misspelling of it."""


def problems_of(error: ValidationError) -> list[str]:
    """Returns one line per invalid setting; for an unknown one it suggests the nearest."""
    return [
        _line(".".join(map(str, one["loc"])), one["type"], one["msg"]) for one in error.errors()
    ]


def nearest_setting(name: str) -> str | None:
    """Returns the setting that was probably meant, None if none is similar."""
    names = [*(setting.name for setting in all_settings()), *section_names()]
    found = process.extractOne(name, names, scorer=fuzz.ratio, score_cutoff=_MIN_SIMILARITY)
    return None if found is None else str(found[0])


def _line(name: str, kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        nearest = nearest_setting(name)
        hint = f"; did you mean {nearest}?" if nearest else "; docs/settings.md lists all"
        return f"there is no setting {name}{hint}"
    return f"{name or 'settings'}: {message.removeprefix('Value error, ')}"
