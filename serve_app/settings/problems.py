"""Error messages about settings."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydantic import ValidationError
from rapidfuzz.distance import OSA

from serve_app.settings.listing import all_settings, section_names

_MAX_COMPARED_CHARS = 64
_NOT_LETTERS = re.compile(r"[^a-z0-9]")


def problems_of(error: ValidationError) -> list[str]:
    """Returns one line per invalid setting; for an unknown one it suggests the nearest."""
    return [
        _line(".".join(map(str, one["loc"])), one["type"], one["msg"]) for one in error.errors()
    ]


def nearest_setting(name: str) -> str | None:
    """Returns the setting that a name was probably meant for; None if none is similar."""
    names = [*(setting.name for setting in all_settings()), *section_names()]
    return nearest_name(name, names, max_typos=len(name) // 3)


def nearest_name(name: str, known: Iterable[str], max_typos: int | None = None) -> str | None:
    """Returns the known name that another one probably misspells; None if none is similar.

    Only letters and digits are compared, in lower case.

    Args:
        name: as written by a user; nothing is found for one of more than 64 letters.
        known: names to choose from.
        max_typos: letters that may be wrong, missing, added or swapped; unless given, none of
            three, one of four, two of ten, three at most.
    """
    folded = _folded(name)
    if not folded or len(folded) > _MAX_COMPARED_CHARS:
        return None
    distances = {one: OSA.distance(folded, _folded(one)) for one in sorted(known)}
    nearest = min(distances, key=distances.__getitem__, default=None)
    if nearest is None:
        return None
    if max_typos is None:
        max_typos = _default_max_typos(min(len(folded), len(_folded(nearest))))
    return nearest if distances[nearest] <= max_typos else None


def _default_max_typos(num_letters: int) -> int:
    return 0 if num_letters < 4 else min(3, max(1, num_letters // 5))


def _folded(name: str) -> str:
    return _NOT_LETTERS.sub("", name.lower())


def _line(name: str, kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        nearest = nearest_setting(name)
        hint = f"; did you mean {nearest}?" if nearest else "; docs/settings.md lists all"
        return f"there is no setting {name}{hint}"
    return f"{name or 'settings'}: {message.removeprefix('Value error, ')}"
