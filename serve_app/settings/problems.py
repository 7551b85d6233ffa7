"""What is wrong with settings, in words."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ValidationError
from rapidfuzz import fuzz, process

from serve_app.settings.model import Settings

_LIKELY = 70.0
"""Similarity in percent from which a name is taken for a misspelling."""


def problems_of(error: ValidationError) -> list[str]:
    """Returns a line for each wrong setting; an unknown one names the nearest that exists."""
    return [
        _line(".".join(map(str, one["loc"])), one["type"], one["msg"]) for one in error.errors()
    ]


def setting_names() -> tuple[str, ...]:
    """Returns the full names of all settings, as recognizer.device."""
    return tuple(_names(Settings, ""))


def nearest_setting(name: str) -> str | None:
    """Returns the setting that a name was probably meant for, None if none is like it."""
    found = process.extractOne(name, setting_names(), scorer=fuzz.ratio, score_cutoff=_LIKELY)
    return None if found is None else str(found[0])


def _line(name: str, kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        nearest = nearest_setting(name)
        hint = f"; did you mean {nearest}?" if nearest else "; docs/settings.md lists all"
        return f"there is no setting {name}{hint}"
    return f"{name or 'settings'}: {message.removeprefix('Value error, ')}"


def _names(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from _names(section, f"{prefix}{name}.")
