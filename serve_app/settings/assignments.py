"""Settings from a command line: a profile and assignments of the form `name=value`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from serve_app.core.errors import ConfigurationError
from serve_app.settings.environment import check_environment
from serve_app.settings.model import Settings


def load_settings(profile: str, assignments: Sequence[str] | None = None) -> Settings:
    """Returns the settings of the command line, the environment and the profile.

    Args:
        profile: name of a built-in profile, or path of a YAML file.
        assignments: such as `recognizer.device=cpu`; values are JSON or plain text.

    Raises:
        ConfigurationError: the profile does not exist, or an assignment has no `=`.
        pydantic.ValidationError: a value is not accepted.
    """
    check_environment()
    values: dict[str, Any] = {"profile": profile}
    for assignment in assignments or ():
        path, separator, value = assignment.partition("=")
        if not separator:
            raise ConfigurationError(f"{assignment!r} is not of the form name=value")
        _assign(values, path.split("."), _parse(value))
    return Settings(**values)


def _assign(values: dict[str, Any], path: list[str], value: object) -> None:
    for name in path[:-1]:
        values = values.setdefault(name, {})
    values[path[-1]] = value


def _parse(value: str) -> object:
    try:
        parsed: object = json.loads(value)
    except json.JSONDecodeError:
        return value
    return parsed
