"""Environment variables that look like ours must name a setting."""

from __future__ import annotations

import os

from serve_app.core.errors import ConfigurationError
from serve_app.settings.listing import all_settings, section_names
from serve_app.settings.section import old_name_problem
from serve_app.settings.sources import ENV_PREFIX

CLIENT_VARIABLES = frozenset({"PARASERVE_URL", "PARASERVE_API_KEY"})
"""Of the client and the commands that call a service; no settings."""


def check_environment(environ: dict[str, str] | None = None) -> None:
    """Refuses environment variables with our prefix that name no setting.

    pydantic-settings ignores them, so a misspelling would go unnoticed.

    Raises:
        ConfigurationError: naming the variables.
    """
    environ = dict(os.environ) if environ is None else environ
    given = {
        variable: variable.upper().removeprefix(ENV_PREFIX).lower().replace("__", ".")
        for variable in sorted(environ)
        if variable.upper().startswith(ENV_PREFIX) and variable.upper() not in CLIENT_VARIABLES
    }
    known = {setting.name for setting in all_settings()} | set(section_names())
    unknown = {variable: name for variable, name in given.items() if name not in known}
    for variable, name in unknown.items():
        if problem := old_name_problem(name):
            raise ConfigurationError(f"environment variable {variable}: {problem}")
    if unknown:
        raise ConfigurationError(f"unknown environment variables: {', '.join(unknown)}")
